//! What holds for every frame of the registry; a frame without a sample in `samples.rs` fails each of these.
//!
//! Exact bytes are in `spec/vectors/02-session/messages.json`, which is made from the same samples.

use std::collections::BTreeMap;

use tidings_proto::codec::{self, Frame};
use tidings_proto::error::Code;
use tidings_proto::frame::{FrameDecoder, FrameError, FrameLimits, RawFrame, decode_one};
use tidings_proto::frames::{self, Sender, Stream};
use tidings_proto::pb;

use crate::samples;

/// Input that once was, or nearly was, taken in a wrong way: name, bytes, and what has to become of it.
const REGRESSIONS: &[(&str, &str, Code)] = &[
    ("a type in more bytes than it needs", "400c00", Code::FRAME_MALFORMED),
    ("a length in more bytes than it needs", "0c4000", Code::FRAME_MALFORMED),
    ("the longest length", "0cffffffffffffffff", Code::FRAME_TOO_LARGE),
    ("a frame that ends inside its payload", "0c040a02", Code::FRAME_MALFORMED),
    ("a field that reaches beyond the payload", "0c020a05", Code::MESSAGE_MALFORMED),
    ("a length of 2^64 - 1 inside the payload", "0c0b0affffffffffffffffff01", Code::MESSAGE_MALFORMED),
    ("text that is not UTF-8 in Hello", "00045a02c328", Code::MESSAGE_MALFORMED),
    ("field number 0", "0c020001", Code::MESSAGE_MALFORMED),
    ("a critical type that is not known", "3e00", Code::FRAME_UNKNOWN),
];

fn samples() -> BTreeMap<u64, Frame> {
    let found: BTreeMap<u64, Frame> = samples::all().into_iter().map(|frame| (frame.kind(), frame)).collect();
    for known in frames::ALL {
        assert!(found.contains_key(&known.code), "{} has no sample", known.name);
    }
    assert_eq!(found.len(), frames::ALL.len(), "no frame beyond the registry");
    found
}

fn read(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    Frame::from_raw(&decode_one(bytes, &FrameLimits::default())?)
}

#[test]
fn every_frame_survives_the_round_trip_and_says_something() {
    for frame in samples().values() {
        assert_eq!(read(&frame.encode()).as_ref(), Ok(&Some(frame.clone())), "{}", frame.name());
        let says_something = !frame.to_raw().payload.is_empty();
        let is_empty_by_nature = matches!(frame, Frame::Done(_) | Frame::RendezvousReceive(_));
        assert!(says_something || is_empty_by_nature, "the sample of {} is empty", frame.name());
    }
}

#[test]
fn the_announced_length_is_the_real_one() {
    for frame in samples().values() {
        let (raw, bytes) = (frame.to_raw(), frame.encode());
        assert_eq!(raw.encoded_len(), Some(bytes.len()), "{}", frame.name());
        let header = bytes.len() - raw.payload.len();
        assert!(bytes.ends_with(&raw.payload) && (2..=5).contains(&header), "{}", frame.name());
        let mut decoder = FrameDecoder::new(FrameLimits::new(raw.payload.len()));
        decoder.push(&bytes);
        assert_eq!(decoder.next_frame(), Ok(Some(raw.clone())), "{}", frame.name());
        if let Some(less) = raw.payload.len().checked_sub(1) {
            let refused = decode_one(&bytes, &FrameLimits::new(less));
            assert!(matches!(refused, Err(FrameError::TooLarge { .. })), "{}", frame.name());
        }
    }
}

#[test]
fn damage_is_an_error_or_another_message_and_never_a_panic() {
    for frame in samples().values() {
        let (bytes, raw) = (frame.encode().to_vec(), frame.to_raw());
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "{} cut to {cut} bytes", frame.name());
        }
        for cut in 0..raw.payload.len() {
            let _taken_or_not = Frame::from_raw(&RawFrame::new(raw.kind, raw.payload.slice(..cut)));
        }
        for place in 0..bytes.len() {
            for flip in [0x01, 0x07, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[place] ^= flip;
                if let Ok(Some(other)) = read(&damaged) {
                    assert_eq!(read(&other.encode()), Ok(Some(other)), "what was read can be written");
                }
            }
        }
        assert!(read(&[bytes, vec![0]].concat()).is_err(), "{} with a byte behind it", frame.name());
    }
}

#[test]
fn a_frame_is_refused_where_another_has_to_come() {
    for frame in samples().values() {
        let raw = frame.to_raw();
        if raw.kind != frames::PONG {
            let refused = codec::decode::<pb::Pong>(&raw);
            assert_eq!(refused, Err(FrameError::Unexpected { got: raw.kind, expected: "pong" }));
        }
    }
}

#[test]
fn a_frame_is_refused_where_it_does_not_belong() {
    let streams =
        [Stream::Control, Stream::Local, Stream::Remote, Stream::Submit, Stream::Event, Stream::Link];
    for frame in samples().values() {
        let mut places = 0;
        for from in [Sender::Opener, Sender::Acceptor] {
            for on in streams {
                match codec::stands(frame.kind(), from, on) {
                    Ok(known) => {
                        assert_eq!(known.map(|known| known.name), Some(frame.name()));
                        places += 1;
                    }
                    Err(refusal) => assert!(
                        [Code::FRAME_UNEXPECTED, Code::WRONG_PIPELINE].contains(&refusal.code),
                        "{}",
                        frame.name()
                    ),
                }
            }
        }
        let anywhere = frame.kind() == frames::FAILURE;
        assert!(places > 0 && (anywhere || places < 12), "{} stands in {places} places", frame.name());
    }
}

#[test]
fn what_was_once_taken_in_a_wrong_way_is_refused() {
    for (name, bytes, code) in REGRESSIONS {
        let bytes = hex::decode(bytes).expect("hexadecimal");
        let error = read(&bytes).expect_err(name);
        assert_eq!(tidings_proto::error::Refusal::from(&error).code, *code, "{name}");
    }
}
