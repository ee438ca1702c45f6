//! The state tables of 02-session, 2.5: every state of a handshake meets every frame.

use tidings_proto::codec::Frame;
use tidings_proto::error::Code;
use tidings_proto::frame::{FrameLimits, RawFrame, decode_one};
use tidings_proto::frames;

use crate::samples;
use crate::scene::Scene;

const GREASE: u64 = 0x21;
const UNKNOWN: u64 = 0x7e;

/// A frame of every registered type, grease, and an unknown critical one.
fn every_frame() -> Vec<RawFrame> {
    let known = samples::all().iter().map(Frame::to_raw).collect::<Vec<_>>();
    [known, vec![RawFrame::new(GREASE, Vec::new()), RawFrame::new(UNKNOWN, Vec::new())]].concat()
}

fn raw(bytes: &[u8]) -> RawFrame {
    decode_one(bytes, &FrameLimits::default()).expect("a frame")
}

/// The frames that one side sends in a handshake with the exporter.
fn sent_by(side: &str) -> Vec<RawFrame> {
    let frames = Scene::device().run();
    frames.iter().filter(|(from, _)| *from == side).map(|(_, bytes)| raw(bytes)).collect()
}

/// What the table says where a frame is not the one that moves the state on.
fn expected(kind: u64, other: Code, exception: Option<(u64, Code)>) -> Option<Code> {
    match (kind, exception) {
        (GREASE, _) => None,
        (UNKNOWN, _) => Some(Code::FRAME_UNKNOWN),
        // A Failure ends the connection with its own code.
        (frames::FAILURE, _) => Some(Code::TOO_FAST),
        (kind, Some((special, code))) if kind == special => Some(code),
        _ => Some(other),
    }
}

#[test]
fn the_opener_answers_every_frame_in_every_state_as_its_table_says() {
    let good = sent_by("acceptor");
    let rows = [
        ("hello sent", frames::WELCOME, None),
        ("welcomed", frames::PROOF, Some((frames::READY, Code::AUTH_REQUIRED))),
        ("acceptor proven", frames::READY, None),
        ("ready", u64::MAX, None),
    ];
    for (place, (state, moves_on, exception)) in rows.into_iter().enumerate() {
        for frame in every_frame().into_iter().filter(|frame| frame.kind != moves_on) {
            let (mut opener, _) = Scene::device().opener();
            for before in &good[..place] {
                opener.handle(before).expect("a good frame");
            }
            let result = opener.handle(&frame).map_err(|refusal| refusal.code).err();
            let due = expected(frame.kind, Code::FRAME_UNEXPECTED, exception);
            assert_eq!(result, due, "{state}: frame {:#x}", frame.kind);
        }
    }
}

#[test]
fn the_acceptor_answers_every_frame_in_every_state_as_its_table_says() {
    let good = sent_by("opener");
    let rows = [
        ("start", frames::HELLO, Code::AUTH_REQUIRED, None),
        (
            "waiting for Proof",
            frames::PROOF,
            Code::AUTH_REQUIRED,
            Some((frames::HELLO, Code::FRAME_UNEXPECTED)),
        ),
    ];
    for (place, (state, moves_on, other, exception)) in rows.into_iter().enumerate() {
        for frame in every_frame().into_iter().filter(|frame| frame.kind != moves_on) {
            let scene = Scene::device();
            let mut acceptor = scene.acceptor();
            for before in &good[..place] {
                scene.accept(&mut acceptor, before).expect("a good frame");
            }
            let result = scene.accept(&mut acceptor, &frame).map_err(|refusal| refusal.code).err();
            let due = expected(frame.kind, other, exception);
            assert_eq!(result, due, "{state}: frame {:#x}", frame.kind);
        }
    }
}

#[test]
fn a_second_exporter_proof_is_skipped_where_the_nonce_proof_is_due() {
    let scene = Scene { acceptor_exporter: false, ..Scene::device() };
    let mut acceptor = scene.acceptor();
    let frames: Vec<RawFrame> =
        scene.run().iter().filter(|(from, _)| *from == "opener").map(|(_, bytes)| raw(bytes)).collect();
    let [hello, exporter, nonce] = frames.as_slice() else { panic!("three frames") };
    scene.accept(&mut acceptor, hello).expect("Hello");
    for _ in 0..2 {
        let (answer, proven) = scene.accept(&mut acceptor, exporter).expect("is skipped");
        assert!(answer.is_empty() && proven.is_none());
    }
    assert!(scene.accept(&mut acceptor, nonce).expect("the proof that is due").1.is_some());
}
