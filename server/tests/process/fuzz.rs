//! Bytes that mean nothing, in every state.

use bytes::{BufMut as _, Bytes, BytesMut};
use tidings_proto::codec::{self, Frame};
use tidings_proto::frame::{self, RawFrame};
use tidings_proto::pb;
use tidings_server::refusal::Code;

use crate::program::{Program, within};
use crate::raw::{Dice, Raw, failure, first_frames, frame, send};

const LIMITS: &str = "requests_per_second = 100000\ncandidate_connections_per_source = 1000";

/// Something that is nearly a frame.
fn rubbish(dice: &mut Dice, good: &[Bytes]) -> Vec<u8> {
    let pick = usize::try_from(dice.below(u64::try_from(good.len()).expect("few"))).expect("few");
    let mut bytes = good[pick].to_vec();
    let at = usize::try_from(dice.below(u64::try_from(bytes.len()).expect("few"))).expect("few");
    match dice.below(6) {
        0 => {
            bytes = {
                let length = 1 + dice.below(64);
                dice.bytes(length)
            }
        }
        1 => bytes.truncate(at),
        2 => bytes[at] ^= 1 << dice.below(8),
        3 => bytes.insert(at, dice.next().to_le_bytes()[0]),
        4 => {
            let mut out = BytesMut::new();
            let length = dice.below(48);
            let payload = dice.bytes(length);
            // Every known type and many unknown ones, around random bytes.
            frame::encode(dice.below(0x80), &payload, &mut out).expect("small");
            bytes = out.to_vec();
        }
        _ => {
            let mut payload = bytes.split_off(2.min(bytes.len()));
            for _ in 0..4 {
                if let Some(place) = payload.len().checked_sub(1) {
                    let place =
                        usize::try_from(dice.below(u64::try_from(place + 1).expect("few"))).expect("few");
                    payload[place] = dice.next().to_le_bytes()[0];
                }
            }
            bytes.extend(payload);
        }
    }
    bytes
}

fn requests(person: &crate::client::Person, to: &crate::client::Person) -> Vec<Bytes> {
    vec![
        codec::encode(&pb::Ping { opaque: vec![1; 8].into() }),
        codec::encode(&pb::Sync::default()),
        codec::encode(&person.submit_to(to, 1)),
        codec::encode(&pb::Decide {
            account: to.account().to_bytes(),
            decision: pb::Decision::Accept.into(),
        }),
        codec::encode(&pb::Resolve { address: to.address.to_string(), ..Default::default() }),
        codec::encode(&pb::FetchBundles { account: to.account().to_bytes(), ..Default::default() }),
        codec::encode(&pb::AppendLink { link: Some(person.genesis.clone()) }),
        codec::encode(&pb::Register {
            genesis: Some(to.genesis.clone()),
            keys: Some(to.identity.prekeys()),
            ..Default::default()
        }),
        codec::encode(&pb::MarkRead { lane: Some(pb::LaneId::default()), upto: 3, except: vec![1, 2] }),
        codec::encode(&pb::RendezvousJoin { id: vec![1; 16].into() }),
        codec::encode(&pb::Ack { position: Some(pb::Position::default()) }),
        codec::encode(&person.identity.prekeys()),
    ]
}

#[tokio::test]
async fn random_bytes_before_the_proof_end_one_connection_with_a_code() {
    let mut dice = Dice::new();
    let program = Program::start(LIMITS).await;
    let (alice, mut served) = program.enter("alice", 1).await;
    for round in 0..60 {
        let mut raw = Raw::silent(&program).await;
        let frames = first_frames(&raw.connection, &program, (crate::program::device(&alice), &alice.device));
        let good: Vec<Bytes> = frames.iter().map(|frame| frame.encode().expect("small")).collect();
        let mut bytes = if round % 3 == 0 { good[0].to_vec() } else { Vec::new() };
        bytes.extend(rubbish(&mut dice, &good));
        bytes.extend(rubbish(&mut dice, &good));
        raw.control_bytes(&bytes).await;
        // The end of a stream inside a frame is an end, too.
        raw.control.0.finish();
        let ended = within(raw.connection.closed()).await;
        assert!(
            matches!(ended, quinn::ConnectionError::ApplicationClosed(_)),
            "{round}: {ended}: {bytes:02x?}"
        );
    }
    served.fence().await;
    program.stop().await;
}

#[tokio::test]
async fn random_frames_on_pipelines_and_control_of_a_device_harm_nobody_else() {
    let mut dice = Dice::new();
    let program = Program::start(LIMITS).await;
    let (alice, _) = program.enter("alice", 1).await;
    let (bob, mut served) = program.enter("bob", 2).await;
    let good = requests(&alice, &bob);
    for _ in 0..80 {
        let mut raw = Raw::device(&program, &alice).await;
        let mut stream = raw.stream().await;
        let mut bytes = Vec::new();
        for _ in 0..6 {
            bytes.extend(rubbish(&mut dice, &good));
        }
        let _refused = stream.0.stream_mut().write_all(&bytes).await;
        stream.0.finish();
        // An answer for each request until the stream or the connection ends.
        while let Ok(Some(answer)) = within(stream.1.next_frame()).await {
            assert!(Frame::from_raw(&answer).is_ok_and(|known| known.is_some()), "{answer:?}");
        }
        raw.control_bytes(&rubbish(&mut dice, &good)).await;
        raw.connection.close(0_u32.into(), b"");
    }
    served.fence().await;
    program.device(&alice).await.fence().await;
    program.stop().await;
}

#[tokio::test]
async fn each_fault_of_a_frame_has_its_answer_in_its_scope() {
    let program = Program::start(LIMITS).await;
    let (alice, _) = program.enter("alice", 1).await;
    let ping = codec::encode(&pb::Ping::default());
    // Bytes on the control stream and on a pipeline: the code that the connection ends with.
    let cases: [(&str, Vec<u8>, u32, u32); 5] = [
        (
            "a length that is not minimal",
            vec![0x0c, 0x40, 0x00],
            Code::FRAME_MALFORMED.0,
            Code::FRAME_MALFORMED.0,
        ),
        (
            "a type that is not minimal",
            vec![0x40, 0x0c, 0x00],
            Code::FRAME_MALFORMED.0,
            Code::FRAME_MALFORMED.0,
        ),
        (
            "beyond every limit",
            vec![0x0c, 0xbf, 0xff, 0xff, 0xff],
            Code::FRAME_TOO_LARGE.0,
            Code::FRAME_TOO_LARGE.0,
        ),
        ("far beyond", [&[0x0c][..], &[0xff; 8]].concat(), Code::FRAME_TOO_LARGE.0, Code::FRAME_TOO_LARGE.0),
        ("out of place", vec![0x02, 0x00], Code::FRAME_UNEXPECTED.0, Code::FRAME_UNEXPECTED.0),
    ];
    for (what, bytes, control, pipeline) in cases {
        let mut raw = Raw::device(&program, &alice).await;
        raw.control_bytes(&bytes).await;
        assert_eq!(raw.closed().await, control, "control: {what}");
        let raw = Raw::device(&program, &alice).await;
        let mut stream = raw.stream().await;
        send(&mut stream, &bytes.into()).await;
        assert_eq!(raw.closed().await, pipeline, "pipeline: {what}");
    }
    let mut raw = Raw::device(&program, &alice).await;
    let mut stream = raw.stream().await;
    // Unknown and ignorable: skipped, wherever a frame can stand, also on the control stream.
    let ignorable = RawFrame::new(0x21 + 0x3e * 1000, vec![1; 500]).encode().expect("small");
    raw.control_bytes(&ignorable).await;
    send(&mut stream, &[ignorable.clone(), ping.clone(), ignorable, ping.clone()].concat().into()).await;
    assert!(matches!((frame(&mut stream).await, frame(&mut stream).await), (Frame::Pong(_), Frame::Pong(_))));
    // A payload that does not parse is refused in its place, and what follows is answered.
    let broken = RawFrame::new(0x46, vec![0xff; 9]).encode().expect("small");
    send(&mut stream, &[broken, ping.clone()].concat().into()).await;
    assert_eq!(failure(&mut stream).await, Code::MESSAGE_MALFORMED.0);
    assert!(matches!(frame(&mut stream).await, Frame::Pong(_)));
    // Unknown and critical: the stream ends, the connection does not.
    send(&mut stream, &RawFrame::new(0x7ffe, vec![1; 5]).encode().expect("small")).await;
    assert_eq!(failure(&mut stream).await, Code::FRAME_UNKNOWN.0);
    let mut other = raw.stream().await;
    send(&mut other, &ping).await;
    assert!(matches!(frame(&mut other).await, Frame::Pong(_)));
    // On the control stream it ends the connection.
    raw.control_bytes(&RawFrame::new(0x7ffe, vec![1; 5]).encode().expect("small")).await;
    assert_eq!(raw.closed().await, Code::FRAME_UNKNOWN.0);
    program.stop().await;
}

#[tokio::test]
async fn half_a_frame_at_the_end_of_a_stream_ends_the_connection_with_a_code() {
    let program = Program::start(LIMITS).await;
    let (alice, _) = program.enter("alice", 1).await;
    let raw = Raw::device(&program, &alice).await;
    let mut stream = raw.stream().await;
    send(&mut stream, &Bytes::from_static(&[0x0c, 0x05, 0x0a])).await;
    stream.0.finish();
    assert_eq!(raw.closed().await, Code::FRAME_MALFORMED.0);
    let mut out = BytesMut::new();
    out.put_slice(&codec::encode(&pb::Ping::default()));
    let raw = Raw::device(&program, &alice).await;
    let mut stream = raw.stream().await;
    send(&mut stream, &out.freeze()).await;
    stream.0.stream_mut().reset(7_u32.into()).expect("open");
    let mut other = raw.stream().await;
    send(&mut other, &codec::encode(&pb::Ping::default())).await;
    assert!(matches!(frame(&mut other).await, Frame::Pong(_)), "a reset ends one stream");
    program.stop().await;
}
