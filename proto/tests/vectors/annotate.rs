//! Names for the bytes of a message, taken from the `.proto` files. It reads protobuf by itself, without the library.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tidings_proto::codec::Frame;

#[derive(Clone)]
struct Field {
    name: String,
    kind: String,
}

type Messages = BTreeMap<String, BTreeMap<u64, Field>>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(read);

/// The messages of `proto/tidings/v1`, as far as this reader has to know them: number, name and type of each field.
fn read() -> Messages {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tidings/v1");
    let mut found = Messages::new();
    for file in fs::read_dir(folder).expect("the folder of the .proto files") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("text");
        let mut message = String::new();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        for piece in code.flat_map(|line| line.split_inclusive(['{', ';', '}'])) {
            let words: Vec<&str> =
                piece.split([' ', ';', '{', '}', '=']).filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                ["message", name] => {
                    message = (*name).to_owned();
                    found.entry(message.clone()).or_default();
                }
                ["enum" | "oneof" | "syntax" | "package" | "import", ..] | [] => {}
                [.., kind, name, number] if !message.is_empty() => {
                    let field = Field { name: (*name).to_owned(), kind: (*kind).to_owned() };
                    if let Ok(number) = number.parse() {
                        found.entry(message.clone()).or_default().insert(number, field);
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// The bytes of a frame in order, each run with what it is.
pub(crate) fn frame(frame: &Frame) -> Value {
    let bytes = frame.encode();
    let raw = frame.to_raw();
    let header = bytes.len() - raw.payload.len();
    let kind_length = 1_usize << (bytes[0] >> 6);
    let mut parts = vec![
        json!([hex::encode(&bytes[..kind_length]), format!("type: {}", frame.name())]),
        json!([hex::encode(&bytes[kind_length..header]), format!("length: {} bytes", raw.payload.len())]),
    ];
    let registered = tidings_proto::frames::find(raw.kind).expect("a registered frame");
    walk(&raw.payload, registered.message, "", &mut parts);
    Value::Array(parts)
}

fn walk(mut rest: &[u8], message: &str, path: &str, parts: &mut Vec<Value>) {
    let fields = &MESSAGES[message];
    while !rest.is_empty() {
        let start = rest;
        let tag = varint(&mut rest);
        let field = &fields[&(tag >> 3)];
        let name = format!("{path}{}", field.name);
        if tag & 7 == 0 {
            let value = varint(&mut rest);
            let used = &start[..start.len() - rest.len()];
            parts.push(json!([hex::encode(used), format!("{name} = {value}")]));
            continue;
        }
        assert_eq!(tag & 7, 2, "no fixed-length numbers occur");
        let length = usize::try_from(varint(&mut rest)).expect("short");
        let head = &start[..start.len() - rest.len()];
        let (value, tail) = rest.split_at(length);
        rest = tail;
        if MESSAGES.contains_key(&field.kind) {
            parts.push(json!([hex::encode(head), format!("{name}: {} of {length} bytes", field.kind)]));
            walk(value, &field.kind, &format!("{name}."), parts);
        } else {
            let what = match field.kind.as_str() {
                "string" => format!("{name} = \"{}\"", String::from_utf8_lossy(value)),
                "bytes" => format!("{name}: {length} bytes"),
                _ => format!("{name}: {length} bytes of packed numbers"),
            };
            parts.push(json!([hex::encode(head), what]));
            parts.push(json!([hex::encode(value), ""]));
        }
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, tail) = rest.split_first().expect("a whole varint");
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
