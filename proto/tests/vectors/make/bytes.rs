//! Chapter 01: varints, frames, canonical bodies, labels, errors. Written byte by byte, without the library.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::vector::File;

pub(crate) fn varint() -> File {
    let mut file = File::new("01-conventions", "varint", "Which number do these bytes begin with?");
    for (bytes, value, used, comment) in [
        ("00", "0", 1, "the least number"),
        ("3f", "63", 1, "the largest in one byte"),
        ("4040", "64", 2, "the least in two bytes"),
        ("7fff", "16383", 2, "the largest in two bytes"),
        ("80004000", "16384", 4, "the least in four bytes"),
        ("bfffffff", "1073741823", 4, "the largest in four bytes"),
        ("c000000040000000", "1073741824", 8, "the least in eight bytes"),
        ("ffffffffffffffff", "4611686018427387903", 8, "the largest number of all"),
        ("c2197c5eff14e88c", "151288809941952652", 8, "the example of RFC 9000 in eight bytes"),
        ("9d7f3e7d", "494878333", 4, "the example of RFC 9000 in four bytes"),
        ("7bbd", "15293", 2, "the example of RFC 9000 in two bytes"),
        ("25ffff", "37", 1, "what follows the number is not looked at"),
    ] {
        file.valid(&["FRM-001"], comment, json!({"bytes": bytes}), json!({"value": value, "used": used}));
    }
    for (bytes, comment) in [
        ("4000", "0 in two bytes"),
        ("4025", "37 in two bytes"),
        ("403f", "63 in two bytes"),
        ("80000000", "0 in four bytes"),
        ("80003fff", "16383 in four bytes"),
        ("c000000000000000", "0 in eight bytes"),
        ("c00000000000003f", "63 in eight bytes"),
        ("c000000000003fff", "16383 in eight bytes"),
        ("c00000003fffffff", "1073741823 in eight bytes"),
    ] {
        file.invalid(&["FRM-002"], comment, "frame-malformed", json!({"bytes": bytes}));
    }
    for (bytes, comment) in [
        ("", "no byte at all, and the stream ends"),
        ("40", "one byte of two, and the stream ends"),
        ("800000", "three bytes of four, and the stream ends"),
        ("c2197c5eff14e8", "seven bytes of eight, and the stream ends"),
    ] {
        file.invalid(&["FRM-006"], comment, "frame-malformed", json!({"bytes": bytes}));
    }
    file
}

pub(crate) fn frame() -> File {
    let question = "Which frames does a stream with exactly these bytes hold, under the limit of its kind?";
    let mut file = File::new("01-conventions", "frame", question);
    let reqs = &["FRM-003"];
    let of = |stream: &str, bytes: &str| json!({"stream": stream, "bytes": bytes});
    let one = |kind: &str, payload: &str| json!({"type": kind, "payload": payload});
    file.valid(reqs, "a stream without frames", of("control", ""), json!([]));
    file.valid(reqs, "a frame without payload", of("other", "1000"), json!([one("16", "")]));
    file.valid(reqs, "Ping", of("other", "0c040a020102"), json!([one("12", "0a020102")]));
    let two = json!([one("12", "0a020102"), one("16", "")]);
    file.valid(reqs, "two frames with nothing between", of("other", "0c040a0201021000"), two);
    file.valid(reqs, "grease is a frame like others", of("control", "2102abcd"), json!([one("33", "abcd")]));
    let long_type = json!([one("4660", "616263")]);
    file.valid(reqs, "a type in two bytes", of("other", "523403616263"), long_type);
    let largest = json!([one("4611686018427387902", "")]);
    file.valid(reqs, "the largest even type", of("other", "fffffffffffffffe00"), largest);
    let long = format!("0c4042{}", "00".repeat(66));
    file.valid(reqs, "a length in two bytes", of("other", &long), json!([one("12", &"00".repeat(66))]));

    for (reqs, comment, code, stream, bytes) in [
        (&["FRM-002"], "type 2 in two bytes", "frame-malformed", "other", "400200"),
        (&["FRM-002"], "length 0 in two bytes", "frame-malformed", "other", "024000"),
        (&["FRM-002"], "length 4 in eight bytes", "frame-malformed", "other", "0cc0000000000000040a020102"),
        (&["FRM-002"], "a good frame, then a bad type", "frame-malformed", "other", "1000400200"),
        (&["FRM-006"], "the end behind the type", "frame-malformed", "other", "0c"),
        (&["FRM-006"], "the end inside the type", "frame-malformed", "other", "52"),
        (&["FRM-006"], "the end inside the length", "frame-malformed", "other", "0c40"),
        (&["FRM-006"], "the end inside the payload", "frame-malformed", "other", "0c040a02"),
        (&["FRM-006"], "a whole frame, then one byte", "frame-malformed", "other", "10000c"),
        (&["FRM-004"], "control: 65537 bytes announced", "frame-too-large", "control", "0c80010001"),
        (&["FRM-004"], "other: 262145 bytes announced", "frame-too-large", "other", "0c80040001"),
        (
            &["FRM-005"],
            "the longest length, nothing behind it",
            "frame-too-large",
            "other",
            "0cffffffffffffffff",
        ),
        (
            &["FRM-004"],
            "an unknown type is bound by the limit too",
            "frame-too-large",
            "control",
            "2180010001",
        ),
        (&["FRM-006"], "within the limit, but the stream ends", "frame-malformed", "control", "0c80010000"),
    ] {
        file.invalid(reqs, comment, code, of(stream, bytes));
    }
    file
}

pub(crate) fn labelled() -> File {
    let question = "Is this SHA-256 the one over these bytes with the label of this purpose?";
    let mut file = File::new("01-conventions", "labelled", question);
    let hash = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let join = |parts: &[&[u8]]| parts.concat();
    for purpose in
        ["server-link", "account-link", "auth-exporter", "auth-nonce", "device-record", "report", "link-code"]
    {
        for bytes in [&b""[..], &[0x08, 0x01]] {
            let labelled = join(&[b"tidings/1\0", purpose.as_bytes(), b"\0", bytes]);
            let inputs = json!({"purpose": purpose, "bytes": hex::encode(bytes), "sha256": hash(&labelled)});
            let comment = if bytes.is_empty() { "no bytes" } else { "two bytes" };
            let vector = file.valid(&["FRM-030"], comment, inputs, json!(true));
            vector.steps(json!({"labelled": hex::encode(labelled)}));
        }
    }
    for (comment, hashed) in [
        ("hashed bare", join(&[b"ab"])),
        ("another purpose", join(&[b"tidings/1\0", b"server-link\0", b"ab"])),
        ("no zero byte behind the version", join(&[b"tidings/1", b"account-link\0", b"ab"])),
        ("no zero byte behind the purpose", join(&[b"tidings/1\0", b"account-link", b"ab"])),
        ("another version", join(&[b"tidings/2\0", b"account-link\0", b"ab"])),
        ("zero byte behind the bytes", join(&[b"tidings/1\0", b"account-link\0", b"ab\0"])),
        ("purpose in capitals", join(&[b"tidings/1\0", b"ACCOUNT-LINK\0", b"ab"])),
    ] {
        let inputs = json!({"purpose": "account-link", "bytes": "6162", "sha256": hash(&hashed)});
        file.invalid(&["FRM-030"], comment, "", inputs).steps(json!({"hashed": hex::encode(&hashed)}));
    }
    file
}

/// Requirement, comment, place, payload; then what a reader acts on: code, name, scope, retry class, milliseconds.
type Acted = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    (u32, Option<&'static str>, &'static str, &'static str, u32),
);

const ACTED: &[Acted] = &[
    (
        "ERR-002",
        "too-fast, with a delay",
        "answer",
        "080e1001180320e807",
        (14, Some("too-fast"), "request", "after-delay", 1000),
    ),
    (
        "ERR-002",
        "a known code keeps its scope",
        "answer",
        "081110011801",
        (17, Some("auth-failed"), "connection", "never", 0),
    ),
    (
        "ERR-002",
        "a known code keeps its retry class",
        "answer",
        "080e10011801",
        (14, Some("too-fast"), "request", "after-delay", 0),
    ),
    (
        "ERR-002",
        "a known code with nothing beside it",
        "answer",
        "0824",
        (36, Some("link-invalid"), "request", "never", 0),
    ),
    (
        "ERR-003",
        "an unknown code of a stream",
        "answer",
        "08f7ee0110021804",
        (0x7777, None, "stream", "elsewhere", 0),
    ),
    (
        "ERR-003",
        "an unknown code of the connection",
        "answer",
        "08f7ee0110031802",
        (0x7777, None, "connection", "after-repair", 0),
    ),
    (
        "ERR-004",
        "an unknown code without scope",
        "answer",
        "08f7ee011801",
        (0x7777, None, "request", "never", 0),
    ),
    (
        "ERR-004",
        "an unknown code with an unknown scope",
        "answer",
        "08f7ee0110091801",
        (0x7777, None, "request", "never", 0),
    ),
    (
        "ERR-004",
        "an unknown code with a negative scope",
        "answer",
        "08f7ee0110ffffffffffffffffff011801",
        (0x7777, None, "request", "never", 0),
    ),
    (
        "ERR-005",
        "an unknown code without retry class",
        "answer",
        "08f7ee011001",
        (0x7777, None, "request", "never", 0),
    ),
    (
        "ERR-005",
        "an unknown code with an unknown retry class",
        "answer",
        "08f7ee0110011863",
        (0x7777, None, "request", "never", 0),
    ),
    (
        "ERR-009",
        "of a request, but on the control stream",
        "control",
        "080e10011803",
        (14, Some("too-fast"), "connection", "after-delay", 0),
    ),
    (
        "ERR-009",
        "an unknown code without scope on the control stream",
        "control",
        "08f7ee01",
        (0x7777, None, "connection", "never", 0),
    ),
    (
        "FRM-012",
        "an unknown field is skipped",
        "answer",
        "0824100118017a0100",
        (36, Some("link-invalid"), "request", "never", 0),
    ),
];

pub(crate) fn failure() -> File {
    let question = "What does a reader do about a Failure with this payload, in this place?";
    let mut file = File::new("01-conventions", "failure", question);
    let of = |place: &str, payload: &str| json!({"place": place, "payload": payload});
    for (req, comment, place, payload, (code, name, scope, retry, after)) in ACTED {
        let output =
            json!({"code": code, "name": name, "scope": scope, "retry": retry, "retry_after_ms": after});
        file.valid(&[req], comment, of(place, payload), output);
    }
    for (comment, payload) in [
        ("the payload ends inside a field", "08"),
        ("detail reaches beyond the payload", "2a05"),
        ("detail is not UTF-8", "08242a02c328"),
        ("field number 0", "0001"),
    ] {
        file.invalid(&["FRM-010"], comment, "message-malformed", of("answer", payload));
    }
    file
}
