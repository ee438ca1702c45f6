//! Frames out of a stream: cut anywhere they are the same, and what is read can be written and read again.

use std::mem::discriminant;

use bytes::Bytes;
use tidings_proto::codec::Frame;
use tidings_proto::frame::{FrameDecoder, FrameError, FrameLimits, RawFrame};
use tidings_proto::{pb, varint};

use super::outcome;
use crate::world;

pub(super) fn run(data: &[u8]) -> u64 {
    let Some((cut, stream)) = data.split_first() else { return 0 };
    check_varint(stream);
    let (whole, whole_end) = decode(stream, stream.len().max(1));
    let (pieces, pieces_end) = decode(stream, usize::from(*cut).max(1));
    assert_eq!(whole, pieces, "frames do not depend on how the stream is cut");
    assert_eq!(whole_end, pieces_end, "the end does not depend on how the stream is cut");

    let mut fates = Vec::new();
    for raw in &whole {
        let again = raw.encode().expect("a frame that was read can be written");
        assert_eq!(Some(again.len()), raw.encoded_len(), "the announced length is the real one");
        match Frame::from_raw(raw) {
            Ok(Some(frame)) => {
                let written = frame.to_raw();
                assert_eq!(written.kind, raw.kind, "a frame keeps its type");
                let read = Frame::from_raw(&written).expect("what was written can be read");
                assert_eq!(read.as_ref(), Some(&frame), "what was written reads the same");
                fates.push((frame.kind(), 0));
            }
            Ok(None) => {
                assert_eq!(raw.kind % 2, 1, "only ignorable types are skipped");
                fates.push((1, 1));
            }
            Err(FrameError::UnknownCritical(_)) => fates.push((1, 2)),
            Err(_) => fates.push((raw.kind, 3)),
        }
    }
    fates.truncate(3);
    outcome((fates, whole_end.map_err(|error| discriminant(&error))))
}

fn check_varint(bytes: &[u8]) {
    if let Ok((value, length)) = varint::decode(bytes) {
        let mut again = Vec::new();
        varint::encode(value, &mut again).expect("a varint that was read can be written");
        assert_eq!(again, bytes[..length], "there is one encoding of a number");
    }
}

fn decode(stream: &[u8], piece: usize) -> (Vec<RawFrame>, Result<(), FrameError>) {
    let limits = FrameLimits::new(8 * 1024).with(0, 1024);
    let mut decoder = FrameDecoder::new(limits.clone());
    let mut frames = Vec::new();
    for bytes in stream.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= limits.of(frame.kind), "limits hold");
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_frame().as_ref(), Err(&error), "an error stays");
                    return (frames, Err(error));
                }
            }
        }
    }
    let end = decoder.finish();
    (frames, end)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let link = world::account_links()[0].clone();
    let frames = [
        Frame::from(pb::Hello {
            domain: "a.example".to_owned(),
            capabilities: vec![0, 2],
            ..Default::default()
        }),
        Frame::from(pb::Welcome {
            limits: vec![pb::Limit { id: 1, value: 262_144 }],
            server_chain: world::server_links().to_vec(),
            ..Default::default()
        }),
        Frame::from(pb::Ping { opaque: Bytes::from_static(b"ping") }),
        Frame::from(pb::Failure {
            code: 0x34,
            devices: vec![Bytes::from_static(&[1; 32])],
            ..Default::default()
        }),
        Frame::from(pb::Register { genesis: Some(link), token: "t".to_owned(), ..Default::default() }),
        Frame::from(pb::Submit {
            counter: 1,
            to_address: "bob@b.example".to_owned(),
            payloads: vec![pb::Payload { ciphertext: Bytes::from_static(&[3; 40]), ..Default::default() }],
            ..Default::default()
        }),
        Frame::from(pb::Outcome {
            counter: 1,
            result: Some(pb::outcome::Result::Accepted(pb::Accepted { number: 1, ..Default::default() })),
        }),
        Frame::from(pb::GroupCreate { links: world::group_links()[..2].to_vec() }),
        Frame::from(pb::GroupBatch {
            records: vec![pb::GroupRecord { entry: world::group_message().into(), evidence: Vec::new() }],
            all_delivered: 3,
            ..Default::default()
        }),
        Frame::from(pb::LinkEntry { n: 7, entry: Bytes::from_static(&[8, 12]), ..Default::default() }),
    ];
    let mut all: Vec<Vec<u8>> = frames.iter().map(|frame| [&[5], frame.encode().as_ref()].concat()).collect();
    let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_vec()).collect();
    all.push([&[1][..], &stream].concat());
    // A type that may be skipped, then one that is known.
    all.push(vec![1, 0x21, 0x01, 0xaa, 0x10, 0x00]);
    all
}
