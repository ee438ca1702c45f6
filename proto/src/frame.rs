//! Frames: `type varint · length varint · payload` (chapter 01).
//!
//! [`FrameDecoder`] takes bytes as they come and gives whole frames. A length above the limit for
//! its type is refused when the header is read. Memory grows with the bytes that came, never with what a
//! header announces.
//!
//! What this module does not do: know what payloads mean ([`crate::codec`]) or read from a socket.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::varint::{self, VarintError};

/// Bytes of payload a frame may have where nothing else is stated (`frame_bytes_max`).
pub const FRAME_BYTES_MAX: usize = 262_144;
/// The same on a control stream (`control_frame_bytes_max`).
pub const CONTROL_FRAME_BYTES_MAX: usize = 65_536;

/// A frame before its payload is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// The type code.
    pub kind: u64,
    /// The payload, byte for byte.
    pub payload: Bytes,
}

/// Why bytes are not a frame that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Type or length is not a minimal varint.
    #[error("frame header")]
    Header(#[source] VarintError),
    /// The announced length is above what this type may have here.
    #[error("frame {kind:#x} announces {length} bytes, limit {limit}")]
    TooLarge {
        /// The type code.
        kind: u64,
        /// The announced length.
        length: u64,
        /// The limit in force, bytes.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame ({0} bytes left over)")]
    Truncated(usize),
    /// A critical type this reader does not know.
    #[error("unknown critical frame {0:#x}")]
    UnknownCritical(u64),
    /// The payload is not a message of the type.
    #[error("payload of frame {kind:#x} cannot be parsed")]
    Payload {
        /// The type code.
        kind: u64,
        /// What the parser said.
        #[source]
        source: prost::DecodeError,
    },
    /// A known frame where it does not belong.
    #[error("frame {got:#x} where {expected} was expected")]
    Unexpected {
        /// The type code that came.
        got: u64,
        /// What was expected, in words.
        expected: &'static str,
    },
}

/// Whether a reader that does not know `code` has to stop (even) or may skip it (odd).
#[must_use]
pub const fn is_critical(code: u64) -> bool {
    code & 1 == 0
}

/// The `n`th grease code, `0x3e * n + 0x21`; always odd. `None` above what a varint carries.
#[must_use]
pub fn grease(n: u64) -> Option<u64> {
    n.checked_mul(0x3e)?.checked_add(0x21).filter(|code| *code <= varint::MAX)
}

/// Whether `code` is one of the grease codes.
#[must_use]
pub const fn is_grease(code: u64) -> bool {
    code >= 0x21 && code % 0x3e == 0x21
}

impl RawFrame {
    /// A frame of this type around this payload.
    #[must_use]
    pub fn new(kind: u64, payload: impl Into<Bytes>) -> Self {
        Self { kind, payload: payload.into() }
    }

    /// Bytes the encoded frame takes; `None` if the type cannot be encoded.
    #[must_use]
    pub fn encoded_len(&self) -> Option<usize> {
        let length = u64::try_from(self.payload.len()).ok()?;
        varint::len(self.kind)?.checked_add(varint::len(length)?)?.checked_add(self.payload.len())
    }

    /// The frame as bytes.
    ///
    /// # Errors
    /// [`FrameError::Header`] if the type is above 2^62 - 1.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let mut out = BytesMut::with_capacity(self.encoded_len().unwrap_or(0));
        encode(self.kind, &self.payload, &mut out)?;
        Ok(out.freeze())
    }
}

/// Appends one frame to `out`.
///
/// # Errors
/// [`FrameError::Header`] if the type is above 2^62 - 1; nothing is written then.
pub fn encode(kind: u64, payload: &[u8], out: &mut impl BufMut) -> Result<(), FrameError> {
    let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    if varint::len(length).is_none() {
        return Err(FrameError::Header(VarintError::TooLarge(length)));
    }
    varint::encode(kind, out).map_err(FrameError::Header)?;
    varint::encode(length, out).map_err(FrameError::Header)?;
    out.put_slice(payload);
    Ok(())
}

/// Largest payload by type: one limit for all, others for named types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameLimits {
    overall: usize,
    by_kind: Vec<(u64, usize)>,
}

impl FrameLimits {
    /// The same limit for all types, bytes of payload.
    #[must_use]
    pub const fn new(overall: usize) -> Self {
        Self { overall, by_kind: Vec::new() }
    }

    /// A limit of its own for one type. It may be above or below the overall one.
    #[must_use]
    pub fn with(mut self, kind: u64, limit: usize) -> Self {
        self.by_kind.retain(|(known, _)| *known != kind);
        self.by_kind.push((kind, limit));
        self
    }

    /// The limit for `kind`, bytes of payload.
    #[must_use]
    pub fn of(&self, kind: u64) -> usize {
        self.by_kind.iter().find(|(known, _)| *known == kind).map_or(self.overall, |(_, limit)| *limit)
    }
}

impl Default for FrameLimits {
    /// The registry's largest frame for all types.
    fn default() -> Self {
        Self::new(FRAME_BYTES_MAX)
    }
}

/// Gives whole frames out of a stream of bytes, cut anywhere.
///
/// After an error the stream has no more frame borders: every further call gives the same error.
#[derive(Debug, Clone, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limits: FrameLimits,
    header: Option<Header>,
    failed: Option<FrameError>,
}

/// A header that was read, and whose payload is still to come.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u64,
    /// Bytes of the header itself.
    bytes: usize,
    /// Bytes of payload.
    length: usize,
}

impl FrameDecoder {
    /// A decoder at a frame border.
    #[must_use]
    pub fn new(limits: FrameLimits) -> Self {
        Self { buffer: BytesMut::new(), limits, header: None, failed: None }
    }

    /// Limits for frames whose header is not read yet.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// Takes bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes taken and not yet given out.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole frame; `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError::Header`] or [`FrameError::TooLarge`], for good.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let header = match self.header() {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.failed = Some(error.clone());
                self.buffer = BytesMut::new();
                return Err(error);
            }
        };
        let Header { kind, bytes, length } = header;
        if bytes.checked_add(length).is_none_or(|total| self.buffer.len() < total) {
            self.header = Some(header);
            return Ok(None);
        }
        self.header = None;
        self.buffer.advance(bytes);
        Ok(Some(RawFrame { kind, payload: self.buffer.split_to(length).freeze() }))
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] if it ended inside a frame, or the earlier error.
    pub fn finish(&self) -> Result<(), FrameError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.buffer.is_empty() => Ok(()),
            None => Err(FrameError::Truncated(self.buffer.len())),
        }
    }

    /// The header at the front; the limit is asked once, when it is whole.
    fn header(&self) -> Result<Option<Header>, FrameError> {
        if self.header.is_some() {
            return Ok(self.header);
        }
        let Some((kind, kind_length)) = peek(&self.buffer)? else {
            return Ok(None);
        };
        let rest = self.buffer.get(kind_length..).unwrap_or_default();
        let Some((length, length_length)) = peek(rest)? else {
            return Ok(None);
        };
        let limit = self.limits.of(kind);
        match usize::try_from(length) {
            Ok(length) if length <= limit => {
                Ok(Some(Header { kind, bytes: kind_length.saturating_add(length_length), length }))
            }
            _ => Err(FrameError::TooLarge { kind, length, limit }),
        }
    }
}

fn peek(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    match varint::decode(bytes) {
        Ok(read) => Ok(Some(read)),
        Err(VarintError::Incomplete { .. }) => Ok(None),
        Err(error) => Err(FrameError::Header(error)),
    }
}

/// Reads exactly one frame from `bytes`, with nothing after it.
///
/// # Errors
/// [`FrameError::Truncated`] if it is cut or something follows, else as [`FrameDecoder::next_frame`].
pub fn decode_one(bytes: &[u8], limits: &FrameLimits) -> Result<RawFrame, FrameError> {
    let mut decoder = FrameDecoder::new(limits.clone());
    decoder.push(bytes);
    let frame = decoder.next_frame()?.ok_or(FrameError::Truncated(bytes.len()))?;
    decoder.finish()?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> FrameLimits {
        FrameLimits::new(64).with(6, 4)
    }

    #[test]
    fn a_frame_has_exactly_these_bytes() {
        let frame = RawFrame::new(0x1234, &b"abc"[..]);
        assert_eq!(hex::encode(frame.encode().unwrap()), "523403616263");
        assert_eq!(decode_one(&hex::decode("523403616263").unwrap(), &limits()), Ok(frame));
    }

    #[test]
    fn an_empty_frame_is_two_bytes() {
        assert_eq!(RawFrame::new(2, Bytes::new()).encode().unwrap().as_ref(), [2, 0]);
    }

    #[test]
    fn too_large_is_refused_when_only_the_header_is_there() {
        let mut decoder = FrameDecoder::new(limits());
        decoder.push(&[0x06, 0x05]);
        let error = FrameError::TooLarge { kind: 6, length: 5, limit: 4 };
        assert_eq!(decoder.next_frame(), Err(error.clone()));
        decoder.push(&[0; 1000]);
        assert_eq!(decoder.next_frame(), Err(error), "the error stays");
        assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn the_longest_length_allocates_nothing() {
        let mut decoder = FrameDecoder::new(limits());
        decoder.push(&hex::decode("02ffffffffffffffff").unwrap());
        assert_eq!(
            decoder.next_frame(),
            Err(FrameError::TooLarge { kind: 2, length: varint::MAX, limit: 64 })
        );
    }

    #[test]
    fn an_announced_length_takes_no_memory_until_its_bytes_come() {
        let mut decoder = FrameDecoder::new(FrameLimits::default());
        decoder.push(&hex::decode("0c80040000").unwrap());
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.buffer.capacity() < 1024, "{}", decoder.buffer.capacity());
    }

    #[test]
    fn new_limits_are_for_headers_that_are_still_to_come() {
        let mut decoder = FrameDecoder::new(limits());
        decoder.push(&[2, 5, 1, 2]);
        assert_eq!(decoder.next_frame(), Ok(None));
        decoder.set_limits(FrameLimits::new(3));
        decoder.push(&[3, 4, 5, 2, 4]);
        assert_eq!(decoder.next_frame(), Ok(Some(RawFrame::new(2, &[1, 2, 3, 4, 5][..]))));
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge { kind: 2, length: 4, limit: 3 }));
    }

    #[test]
    fn a_frame_at_its_limit_passes() {
        assert!(decode_one(&[6, 4, 1, 2, 3, 4], &limits()).is_ok());
    }

    #[test]
    fn headers_that_are_not_minimal_are_refused() {
        for bytes in [&[0x40, 0x02, 0x00][..], &[0x02, 0x40, 0x00][..]] {
            assert!(matches!(
                decode_one(bytes, &limits()),
                Err(FrameError::Header(VarintError::NotMinimal { .. }))
            ));
        }
    }

    #[test]
    fn the_end_inside_a_frame_is_truncated() {
        for bytes in [&[][..], &[2][..], &[2, 3, 0][..], &[2, 0, 0][..]] {
            assert!(matches!(decode_one(bytes, &limits()), Err(FrameError::Truncated(_))), "{bytes:?}");
        }
    }

    #[test]
    fn grease_is_odd_and_recognised() {
        assert_eq!(grease(0), Some(0x21));
        assert_eq!(grease(u64::MAX), None);
        for n in 0..1000 {
            let code = grease(n).unwrap();
            assert!(is_grease(code) && !is_critical(code));
        }
        assert!(!is_grease(0x01) && !is_grease(0x22));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in proptest::collection::vec((0..=varint::MAX, proptest::collection::vec(any::<u8>(), 0..64)), 0..6),
            cut in 1_usize..20,
        ) {
            let limits = FrameLimits::new(64);
            let mut bytes = BytesMut::new();
            for (kind, payload) in &frames {
                let before = bytes.len();
                encode(*kind, payload, &mut bytes).unwrap();
                prop_assert_eq!(Some(bytes.len() - before), RawFrame::new(*kind, payload.clone()).encoded_len());
            }
            let mut decoder = FrameDecoder::new(limits);
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push((frame.kind, frame.payload.to_vec()));
                }
            }
            decoder.finish().unwrap();
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = FrameDecoder::new(limits());
            decoder.push(&bytes);
            while let Ok(Some(frame)) = decoder.next_frame() {
                prop_assert!(frame.payload.len() <= 64);
            }
        }
    }
}
