//! Frames over quinn streams: bounded reads, typed errors.

use bytes::Bytes;
use prost::Message as _;
use quinn::{RecvStream, SendStream, VarInt};
use tidings_proto::codec::{self, Frame, FrameMessage};
use tidings_proto::frame::{FrameDecoder, FrameError, FrameLimits, RawFrame};

use crate::refusal::{Because as _, Code, Refusal};

/// Why reading a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The other side broke a rule.
    #[error("broken rule")]
    Refused(#[from] Refusal),
    /// The stream or connection is gone.
    #[error("stream is gone")]
    Gone,
}

/// Reads whole frames.
pub(super) struct Reader {
    stream: RecvStream,
    decoder: FrameDecoder,
}

impl Reader {
    pub(super) fn new(stream: RecvStream, frame_bytes_max: u64) -> Self {
        let limit = usize::try_from(frame_bytes_max).unwrap_or(usize::MAX);
        Self { stream, decoder: FrameDecoder::new(FrameLimits::new(limit)) }
    }

    /// The next frame; `None` at the end of the stream. May be dropped between frames without loss.
    pub(super) async fn raw(&mut self) -> Result<Option<RawFrame>, ReadError> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(|error| refusal_of(&error))? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(16 * 1024, true).await {
                Ok(Some(chunk)) => self.decoder.push(&chunk.bytes),
                Ok(None) => {
                    self.decoder.finish().map_err(|error| refusal_of(&error))?;
                    return Ok(None);
                }
                Err(_) => return Err(ReadError::Gone),
            }
        }
    }

    /// The next frame of a known type, with its payload; unknown ignorable ones are skipped.
    pub(super) async fn frame(&mut self) -> Result<Option<(Frame, Bytes)>, ReadError> {
        while let Some(raw) = self.raw().await? {
            if let Some(frame) = Frame::from_raw(&raw).map_err(|error| refusal_of(&error))? {
                return Ok(Some((frame, raw.payload)));
            }
        }
        Ok(None)
    }
}

/// What the registry says to a fault in framing.
pub(super) fn refusal_of(error: &FrameError) -> Refusal {
    let code = match error {
        FrameError::Header(_) | FrameError::Truncated(_) => Code::FRAME_MALFORMED,
        FrameError::TooLarge { .. } => Code::FRAME_TOO_LARGE,
        FrameError::UnknownCritical(_) => Code::FRAME_UNKNOWN,
        FrameError::Payload { .. } => Code::MESSAGE_MALFORMED,
        FrameError::Unexpected { .. } => Code::FRAME_UNEXPECTED,
    };
    code.because(&error.to_string())
}

/// Writes one frame.
pub(super) async fn write<M: FrameMessage>(stream: &mut SendStream, message: &M) -> Result<(), ReadError> {
    write_bytes(stream, codec::encode(message)).await
}

/// Writes bytes that are whole frames.
pub(super) async fn write_bytes(stream: &mut SendStream, bytes: Bytes) -> Result<(), ReadError> {
    stream.write_chunk(bytes).await.map_err(|_| ReadError::Gone)
}

/// Writes a refusal in the place of an answer.
pub(super) async fn write_refusal(stream: &mut SendStream, refusal: &Refusal) -> Result<(), ReadError> {
    write(stream, &refusal.to_pb()).await
}

/// Ends the connection with a typed error: the code as the application's, the Failure as the reason.
pub(crate) fn close(connection: &quinn::Connection, refusal: &Refusal) {
    let mut failure = refusal.to_pb();
    failure.detail.truncate(failure.detail.floor_char_boundary(64));
    connection.close(VarInt::from_u32(refusal.code.0), &failure.encode_to_vec());
}
