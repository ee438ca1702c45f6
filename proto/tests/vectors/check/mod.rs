//! The verifier: what the library says about a vector, through its public interface only.
//!
//! Each function gives the output, or the code of the refusal (empty where the text has none).

mod bytes;
mod chains;
mod groups;
mod logs;
mod session;

use serde_json::Value;

use crate::vector::File;

/// What became of a vector.
pub(crate) type Verdict = Result<Value, String>;

/// The function that answers the question of a file.
pub(crate) fn of(file: &File) -> fn(&Value) -> Verdict {
    match file.name.as_str() {
        "varint" => bytes::varint,
        "frame" => bytes::frame,
        "failure" => bytes::failure,
        "labelled" => bytes::labelled,
        "canonical" => bytes::canonical,
        "ed25519" => bytes::ed25519,
        "name" => bytes::name,
        "messages" => session::messages,
        "placement" => session::placement,
        "proof" => session::proof,
        "handshake" => session::handshake,
        "log" => logs::log,
        "compare" => logs::compare,
        "account" => chains::account,
        "server" => chains::server,
        "fork" => chains::fork,
        "watermark" => logs::watermark,
        "group-chain" => groups::chain,
        "group-link" => groups::one_link,
        "group-log" => groups::log,
        "group-head" => groups::head,
        "group-vote" => groups::vote,
        "group-term" => groups::term,
        other => panic!("nothing is known of the file {other}"),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text `{name}` in {value}"))
}

fn hex_of(value: &Value, name: &str) -> Vec<u8> {
    hex::decode(text(value, name)).expect("hexadecimal")
}

fn number(value: &Value, name: &str) -> u64 {
    text(value, name).parse().expect("a decimal number")
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("of the stated length")
}
