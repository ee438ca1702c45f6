use serde_json::{Value, json};
use tidings_proto::canonical::{Shape, scan};
use tidings_proto::chain::{AccountState, ChainState, ServerState};
use tidings_proto::error::{Refusal, Retry, Scope};
use tidings_proto::frame::{CONTROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX, FrameDecoder, FrameError, FrameLimits};
use tidings_proto::name::{Address, Domain, User};
use tidings_proto::record;
use tidings_proto::sign::{PublicKey, Purpose, Signature, labelled_hash};
use tidings_proto::varint as varints;

use super::{Verdict, hex_of, text};

fn code(error: &FrameError) -> String {
    Refusal::from(error).code.to_string()
}

pub(super) fn varint(inputs: &Value) -> Verdict {
    let bytes = hex_of(inputs, "bytes");
    let (value, used) = varints::decode(&bytes).map_err(|error| code(&FrameError::Header(error)))?;
    let mut again = Vec::new();
    varints::encode(value, &mut again).expect("in range");
    assert_eq!(again, bytes[..used], "there is one encoding");
    Ok(json!({"value": value.to_string(), "used": used}))
}

/// Byte by byte, so that every place where the transport can cut occurs.
pub(super) fn frame(inputs: &Value) -> Verdict {
    let limit = if text(inputs, "stream") == "control" { CONTROL_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX };
    let mut decoder = FrameDecoder::new(FrameLimits::new(limit));
    let mut frames = Vec::new();
    for byte in hex_of(inputs, "bytes") {
        decoder.push(&[byte]);
        while let Some(frame) = decoder.next_frame().map_err(|error| code(&error))? {
            frames.push(json!({"type": frame.kind.to_string(), "payload": hex::encode(frame.payload)}));
        }
    }
    decoder.finish().map_err(|error| code(&error))?;
    Ok(frames.into())
}

pub(super) fn failure(inputs: &Value) -> Verdict {
    let raw = tidings_proto::frame::RawFrame::new(0x12, hex_of(inputs, "payload"));
    let failure = tidings_proto::codec::decode(&raw).map_err(|error| code(&error))?;
    let refusal = Refusal::from_pb(&failure);
    let scope = match (text(inputs, "place"), refusal.scope) {
        ("control", _) | (_, Scope::Connection) => "connection",
        (_, Scope::Stream) => "stream",
        (_, Scope::Request | Scope::Unspecified) => "request",
    };
    let retry = match refusal.retry {
        Retry::Never | Retry::Unspecified => "never",
        Retry::AfterRepair => "after-repair",
        Retry::AfterDelay => "after-delay",
        Retry::Elsewhere => "elsewhere",
    };
    Ok(json!({
        "code": refusal.code.0,
        "name": refusal.code.name(),
        "scope": scope,
        "retry": retry,
        "retry_after_ms": failure.retry_after_ms,
    }))
}

fn purpose(inputs: &Value) -> Purpose {
    let name = text(inputs, "purpose");
    Purpose::ALL.into_iter().find(|purpose| purpose.as_str() == name).expect("a registered purpose")
}

pub(super) fn labelled(inputs: &Value) -> Verdict {
    let hash = labelled_hash(purpose(inputs), &hex_of(inputs, "bytes"));
    if hash.to_string() == text(inputs, "sha256") { Ok(json!(true)) } else { Err(String::new()) }
}

pub(super) fn canonical(inputs: &Value) -> Verdict {
    let shape: &'static Shape = match text(inputs, "message") {
        "AccountLinkBody" => AccountState::SHAPE,
        "ServerLinkBody" => ServerState::SHAPE,
        "DeviceRecord" => &record::DEVICE_RECORD,
        "UndecryptableReport" => &record::UNDECRYPTABLE_REPORT,
        other => panic!("no shape of {other}"),
    };
    scan(&hex_of(inputs, "bytes"), shape).map(|()| json!(true)).map_err(|_| String::new())
}

pub(super) fn ed25519(inputs: &Value) -> Verdict {
    let verified = PublicKey::parse(&hex_of(inputs, "key")).and_then(|key| {
        let signature = Signature::parse(&hex_of(inputs, "signature"))?;
        key.verify(purpose(inputs), &hex_of(inputs, "bytes"), &signature)?;
        Ok(json!({"key_id": key.id().to_string()}))
    });
    verified.map_err(|_| String::new())
}

pub(super) fn name(inputs: &Value) -> Verdict {
    let name = text(inputs, "text");
    let read = match text(inputs, "kind") {
        "domain" => Domain::parse(name).map(|domain| domain.to_string()),
        "user" => User::parse(name).map(|user| user.to_string()),
        _ => Address::parse(name).map(|address| address.to_string()),
    };
    let read = read.map_err(|_| "message-malformed".to_owned())?;
    assert_eq!(read, name, "a name is taken as it is");
    Ok(json!(true))
}
