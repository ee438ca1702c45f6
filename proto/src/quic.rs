//! Frames on QUIC streams (chapter 02), for whoever drives a connection. Feature `quic`.
//!
//! What this module does not do: TLS set-up, time-outs, retries.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::codec::{self, FrameMessage};
use crate::frame::{self, FrameDecoder, FrameError, FrameLimits, RawFrame};
use crate::handshake::{EXPORTER_LABEL, Exporter};
use crate::limits;
use crate::pb;

/// Bytes asked from a stream at once.
const READ_BYTES: usize = 16 * 1024;

/// Why no frame came, or none could be sent.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side broke the framing.
    #[error("frame")]
    Frame(#[from] FrameError),
    /// The stream or connection is gone.
    #[error("stream read")]
    Read(#[from] quinn::ReadError),
    /// The stream or connection is gone.
    #[error("stream write")]
    Write(#[from] quinn::WriteError),
}

/// Reads whole frames from a stream.
///
/// [`Self::next_frame`] may be dropped while it waits: what was read stays in the reader.
#[derive(Debug)]
pub struct FrameReader {
    stream: quinn::RecvStream,
    decoder: FrameDecoder,
}

impl FrameReader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new(stream: quinn::RecvStream, limits: FrameLimits) -> Self {
        Self { stream, decoder: FrameDecoder::new(limits) }
    }

    /// Limits for frames that are still to come.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.decoder.set_limits(limits);
    }

    /// The next frame; `None` at the stream's end.
    ///
    /// # Errors
    /// [`StreamError`]: bad framing, an end inside a frame, or a stream that is gone.
    pub async fn next_frame(&mut self) -> Result<Option<RawFrame>, StreamError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => self.decoder.push(&chunk.bytes),
                None => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
            }
        }
    }

    /// The next frame, which has to be of this type.
    ///
    /// # Errors
    /// As [`Self::next_frame`]; [`FrameError::Unexpected`] for another type; [`FrameError::Truncated`] at the end.
    pub async fn expect<M: FrameMessage>(&mut self) -> Result<M, StreamError> {
        let raw = self.next_frame().await?.ok_or(FrameError::Truncated(0))?;
        Ok(codec::decode(&raw)?)
    }

    /// The stream: to stop it.
    pub const fn stream_mut(&mut self) -> &mut quinn::RecvStream {
        &mut self.stream
    }
}

/// Writes whole frames to a stream.
///
/// A write that is dropped while it waits may have sent part of a frame: the stream is then unusable.
#[derive(Debug)]
pub struct FrameWriter {
    stream: quinn::SendStream,
    buffer: BytesMut,
}

impl FrameWriter {
    /// A writer at the start of a stream.
    #[must_use]
    pub fn new(stream: quinn::SendStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// [`StreamError`]: a code that cannot be encoded, or a stream that is gone.
    pub async fn write(&mut self, frame: &RawFrame) -> Result<(), StreamError> {
        frame::encode(frame.kind, &frame.payload, &mut self.buffer)?;
        self.flush().await
    }

    /// Writes frames together.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_all(&mut self, frames: &[RawFrame]) -> Result<(), StreamError> {
        for frame in frames {
            frame::encode(frame.kind, &frame.payload, &mut self.buffer)?;
        }
        self.flush().await
    }

    /// Writes the frame of a message.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn send<M: FrameMessage>(&mut self, message: &M) -> Result<(), StreamError> {
        self.write(&codec::to_raw(message)).await
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        let bytes = self.buffer.split().freeze();
        Ok(self.stream.write_chunk(bytes).await?)
    }

    /// Ends the stream after what was written.
    pub fn finish(&mut self) {
        // The only error is that it is closed already.
        let _ = self.stream.finish();
    }

    /// The stream: to reset it or give it a priority.
    pub const fn stream_mut(&mut self) -> &mut quinn::SendStream {
        &mut self.stream
    }
}

/// Reader and writer of a bidirectional stream.
#[must_use]
pub fn frames(
    streams: (quinn::SendStream, quinn::RecvStream),
    limits: FrameLimits,
) -> (FrameWriter, FrameReader) {
    (FrameWriter::new(streams.0), FrameReader::new(streams.1, limits))
}

/// Refuses a connection on its control stream and waits until the other side has closed it: a close of this side
/// would overtake what the refusal hands over. To be given a time.
pub async fn hand_over(control: &mut FrameWriter, connection: &quinn::Connection, failure: &pb::Failure) {
    if control.send(failure).await.is_ok() {
        control.finish();
        connection.closed().await;
    }
}

/// Numbers of a connection, from the limits registry.
#[derive(Debug, Clone)]
pub struct TransportLimits {
    /// `idle_timeout_ms`.
    pub idle_timeout: Duration,
    /// `keepalive_ms`.
    pub keepalive: Duration,
    /// `pipelines_max`, and one for the control stream.
    pub bidirectional_streams: u32,
    /// Event streams.
    pub unidirectional_streams: u32,
    /// Credit of one stream: at least one maximal frame.
    pub stream_window_bytes: u32,
    /// Credit of the connection.
    pub connection_window_bytes: u32,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_millis(limits::IDLE_TIMEOUT_MS),
            keepalive: Duration::from_millis(limits::KEEPALIVE_MS),
            bidirectional_streams: 9,
            unidirectional_streams: 4,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 8 << 20,
        }
    }
}

impl TransportLimits {
    /// The transport settings that both sides use.
    #[must_use]
    pub fn to_config(&self) -> Arc<quinn::TransportConfig> {
        let mut config = quinn::TransportConfig::default();
        let idle = u32::try_from(self.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        config.max_idle_timeout(Some(quinn::VarInt::from_u32(idle).into()));
        config.keep_alive_interval(Some(self.keepalive));
        config.max_concurrent_bidi_streams(self.bidirectional_streams.into());
        config.max_concurrent_uni_streams(self.unidirectional_streams.into());
        config.stream_receive_window(self.stream_window_bytes.into());
        config.receive_window(self.connection_window_bytes.into());
        Arc::new(config)
    }
}

/// The transport settings with the registry's defaults.
#[must_use]
pub fn transport_config() -> Arc<quinn::TransportConfig> {
    TransportLimits::default().to_config()
}

/// The exporter's value of a connection.
///
/// `None` if TLS cannot give it, which does not happen after the TLS handshake.
#[must_use]
pub fn exporter(connection: &quinn::Connection) -> Option<Exporter> {
    let mut value = [0; 32];
    connection.export_keying_material(&mut value, EXPORTER_LABEL, b"").ok()?;
    Some(value)
}

/// The protocol that TLS agreed on.
#[must_use]
pub fn alpn(connection: &quinn::Connection) -> Option<String> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    String::from_utf8(data.protocol?).ok()
}
