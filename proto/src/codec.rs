//! Typed frames: the registry's codes and the messages they carry (chapters 01, 02).
//!
//! [`Frame::from_raw`] reads whatever may come; [`decode`] reads the one type that must come here.
//! The codes are those of `spec/registry/frames.toml`.
//!
//! [`stands`] says whether a type may come from a side on a stream.
//!
//! What this module does not do: check what messages say, or the state of a connection.

use bytes::Bytes;

use crate::error::{Code, Refusal, Scope};
use crate::frame::{FrameError, RawFrame, is_critical};
use crate::frames::{self, FrameSpec, Sender, Stream};
use crate::pb;

/// A message that has a frame type of its own.
pub trait FrameMessage: prost::Message + Default {
    /// The type code.
    const KIND: u64;
    /// The registered name.
    const NAME: &'static str;
}

macro_rules! frames {
    ($($code:literal $name:literal $message:ident),* $(,)?) => {
        /// A frame of a known type.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Frame {
            $(#[doc = concat!("`", $name, "`, frame ", stringify!($code), ".")] $message(pb::$message)),*
        }

        $(impl FrameMessage for pb::$message {
            const KIND: u64 = $code;
            const NAME: &'static str = $name;
        }

        impl From<pb::$message> for Frame {
            fn from(message: pb::$message) -> Self {
                Self::$message(message)
            }
        })*

        impl Frame {
            /// All known types: code and registered name.
            pub const KNOWN: &'static [(u64, &'static str)] = &[$(($code, $name)),*];

            /// Reads a frame; `None` is an unknown type that may be skipped.
            ///
            /// # Errors
            /// [`FrameError::UnknownCritical`], [`FrameError::Payload`].
            pub fn from_raw(raw: &RawFrame) -> Result<Option<Self>, FrameError> {
                match raw.kind {
                    $($code => decode_message(raw).map(|message| Some(Self::$message(message))),)*
                    kind if is_critical(kind) => Err(FrameError::UnknownCritical(kind)),
                    _ => Ok(None),
                }
            }

            /// The type code.
            #[must_use]
            pub const fn kind(&self) -> u64 {
                match self { $(Self::$message(_) => $code),* }
            }

            /// The registered name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$message(_) => $name),* }
            }

            /// The frame with its payload encoded.
            #[must_use]
            pub fn to_raw(&self) -> RawFrame {
                match self { $(Self::$message(message) => to_raw(message)),* }
            }
        }
    };
}

frames! {
    0x00 "hello" Hello,
    0x02 "welcome" Welcome,
    0x04 "proof" Proof,
    0x06 "ready" Ready,
    0x08 "go-away" GoAway,
    0x0a "ack" Ack,
    0x0c "ping" Ping,
    0x0e "pong" Pong,
    0x10 "done" Done,
    0x12 "failure" Failure,
    0x14 "sync" Sync,
    0x16 "syncing" Syncing,
    0x18 "mailbox-entry" MailboxEntry,
    0x1a "group-event" GroupEvent,
    0x1c "group-head-event" GroupHeadEvent,
    0x1e "group-gap" GroupGap,
    0x20 "register" Register,
    0x22 "append-link" AppendLink,
    0x24 "resolve" Resolve,
    0x26 "resolved" Resolved,
    0x28 "publish-record" PublishRecord,
    0x2a "fetch-bundles" FetchBundles,
    0x2c "bundles" Bundles,
    0x2e "publish-keys" PublishKeys,
    0x30 "rendezvous-join" RendezvousJoin,
    0x32 "rendezvous-send" RendezvousSend,
    0x34 "rendezvous-receive" RendezvousReceive,
    0x36 "rendezvous-blob" RendezvousBlob,
    0x40 "submit" Submit,
    0x42 "outcome" Outcome,
    0x44 "mark-read" MarkRead,
    0x46 "decide" Decide,
    0x60 "link-resume" LinkResume,
    0x62 "link-entry" LinkEntry,
    0x64 "link-ack" LinkAck,
    0x66 "results-seen" ResultsSeen,
    0x68 "pause" Pause,
    0x6a "link-restart" LinkRestart,
    0x80 "group-batch" GroupBatch,
    0x82 "group-taken" GroupTaken,
    0x84 "group-offer" GroupOffer,
    0x86 "group-placed" GroupPlaced,
    0x88 "group-append" GroupAppend,
    0x8a "group-appended" GroupAppended,
    0x8c "group-create" GroupCreate,
    0x8e "group-fetch" GroupFetch,
    0x90 "group-page" GroupPage,
    0x92 "group-marks" GroupMarks,
    0x94 "group-marks-fetch" GroupMarksFetch,
    0x96 "group-marks-table" GroupMarksTable,
    0x98 "keeper-ask" KeeperAsk,
    0x9a "keeper-state" KeeperState,
    0x9c "keeper-propose" KeeperPropose,
    0x9e "keeper-voted" KeeperVoted,
    0xa0 "group-ack" GroupAck,
    0xa2 "group-rewind" GroupRewind,
    0xa4 "group-mark-read" GroupMarkRead,
}

impl Frame {
    /// The frame as bytes, ready to be written.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.to_raw().encode().expect("registered codes fit a varint")
    }
}

/// The registered name of a type code.
#[must_use]
pub fn name_of(kind: u64) -> Option<&'static str> {
    Frame::KNOWN.iter().find(|(code, _)| *code == kind).map(|(_, name)| *name)
}

/// Whether a frame of this type may come from this side on this stream; `None` is one to be skipped.
///
/// `from` is never [`Sender::Both`]. On a pipeline whose class is not fixed yet, `on` is [`Stream::Pipeline`].
///
/// # Errors
/// `frame-unknown` for a critical type that is not known, `frame-unexpected` for a known one that does not belong
/// there, `wrong-pipeline` for one that belongs on a pipeline of another class.
pub fn stands(kind: u64, from: Sender, on: Stream) -> Result<Option<&'static FrameSpec>, Refusal> {
    let Some(known) = frames::find(kind) else {
        if !is_critical(kind) {
            return Ok(None);
        }
        let mut refusal = Refusal::new(Code::FRAME_UNKNOWN, format!("frame {kind:#x}"));
        if on == Stream::Control {
            refusal.scope = Scope::Connection;
        }
        return Err(refusal);
    };
    let is_pipeline =
        |stream| matches!(stream, Stream::Pipeline | Stream::Local | Stream::Remote | Stream::Submit);
    let sent = known.sender == Sender::Both || known.sender == from;
    let here = match known.stream {
        Stream::Any => true,
        Stream::Pipeline => is_pipeline(on),
        stream => stream == on || (on == Stream::Pipeline && is_pipeline(stream)),
    };
    match (sent, here) {
        (true, true) => Ok(Some(known)),
        (true, false) if is_pipeline(known.stream) && is_pipeline(on) => {
            Err(Refusal::new(Code::WRONG_PIPELINE, known.name))
        }
        _ => Err(Refusal::new(Code::FRAME_UNEXPECTED, known.name)),
    }
}

/// Parses the payload, whatever the type code.
///
/// # Errors
/// [`FrameError::Payload`] if it is not such a message.
pub fn decode_message<M: prost::Message + Default>(raw: &RawFrame) -> Result<M, FrameError> {
    M::decode(raw.payload.clone()).map_err(|source| FrameError::Payload { kind: raw.kind, source })
}

/// Reads a frame that has to be of this type.
///
/// # Errors
/// [`FrameError::Unexpected`] for another type, [`FrameError::Payload`].
pub fn decode<M: FrameMessage>(raw: &RawFrame) -> Result<M, FrameError> {
    if raw.kind == M::KIND {
        decode_message(raw)
    } else {
        Err(FrameError::Unexpected { got: raw.kind, expected: M::NAME })
    }
}

/// The frame around a message.
#[must_use]
pub fn to_raw<M: FrameMessage>(message: &M) -> RawFrame {
    RawFrame::new(M::KIND, message.encode_to_vec())
}

/// The frame around a message, as bytes.
#[must_use]
pub fn encode<M: FrameMessage>(message: &M) -> Bytes {
    to_raw(message).encode().expect("registered codes fit a varint")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameLimits, decode_one};
    use proptest::prelude::*;

    #[test]
    fn a_ping_has_exactly_these_bytes() {
        let ping = Frame::from(pb::Ping { opaque: Bytes::from_static(&[1, 2]) });
        assert_eq!(hex::encode(ping.encode()), "0c040a020102");
        let raw = decode_one(&ping.encode(), &FrameLimits::default()).unwrap();
        assert_eq!(Frame::from_raw(&raw), Ok(Some(ping)));
    }

    #[test]
    fn every_known_frame_survives_the_round_trip_empty() {
        for (code, name) in Frame::KNOWN {
            let raw = RawFrame::new(*code, Bytes::new());
            let frame = Frame::from_raw(&raw).unwrap().unwrap();
            assert_eq!((frame.kind(), frame.name(), frame.to_raw()), (*code, *name, raw));
            assert_eq!(name_of(*code), Some(*name));
        }
    }

    #[test]
    fn unknown_frames_are_skipped_or_stop() {
        assert_eq!(Frame::from_raw(&RawFrame::new(0x21, Bytes::new())), Ok(None));
        assert_eq!(
            Frame::from_raw(&RawFrame::new(0x7e, Bytes::new())),
            Err(FrameError::UnknownCritical(0x7e))
        );
    }

    #[test]
    fn a_frame_that_does_not_belong_is_named() {
        let raw = to_raw(&pb::Done {});
        assert_eq!(decode::<pb::Pong>(&raw), Err(FrameError::Unexpected { got: 0x10, expected: "pong" }));
    }

    #[test]
    fn every_frame_stands_where_the_registry_has_it_and_nowhere_else() {
        use Stream::{Control, Event, Link, Local, Remote, Submit};
        let code = |kind, from, on| {
            stands(kind, from, on).map(|known| known.map(|known| known.name)).map_err(|r| r.code)
        };
        for known in frames::ALL {
            for on in [Control, Local, Remote, Submit, Event, Link] {
                for from in [Sender::Opener, Sender::Acceptor] {
                    let listed = known.stream == Stream::Any
                        || known.stream == on
                        || (known.stream == Stream::Pipeline && matches!(on, Local | Remote | Submit));
                    let sent = matches!(known.sender, Sender::Both) || known.sender == from;
                    let result = code(known.code, from, on);
                    assert_eq!(result.is_ok(), listed && sent, "{} from {from:?} on {on:?}", known.name);
                }
            }
        }
        assert_eq!(code(frames::SUBMIT, Sender::Opener, Local), Err(Code::WRONG_PIPELINE));
        assert_eq!(code(frames::SUBMIT, Sender::Acceptor, Submit), Err(Code::FRAME_UNEXPECTED));
        assert_eq!(code(frames::SUBMIT, Sender::Acceptor, Local), Err(Code::FRAME_UNEXPECTED));
        assert_eq!(code(frames::SUBMIT, Sender::Opener, Control), Err(Code::FRAME_UNEXPECTED));
        assert_eq!(code(frames::SUBMIT, Sender::Opener, Stream::Pipeline), Ok(Some("submit")));
        assert_eq!(code(0x21, Sender::Opener, Control), Ok(None));
        let unknown = |on| stands(0x7e, Sender::Opener, on).unwrap_err().scope;
        assert_eq!((unknown(Control), unknown(Local)), (Scope::Connection, Scope::Stream));
    }

    #[test]
    fn a_damaged_payload_is_an_error() {
        let raw = RawFrame::new(0x0c, &[0x0a, 0x05, 0x01][..]);
        assert!(matches!(Frame::from_raw(&raw), Err(FrameError::Payload { kind: 0x0c, .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(place in any::<prop::sample::Index>(), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (code, _) = Frame::KNOWN[place.index(Frame::KNOWN.len())];
            let _ = Frame::from_raw(&RawFrame::new(code, payload));
        }
    }
}
