use prost::Message as _;
use serde_json::{Value, json};
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::{Agreement, Position, PositionError};
use tidings_proto::watermark::{Read, ReadError};
use tidings_proto::{entries, pb};

use super::{Verdict, hex_of, number, text};

fn position(value: &Value) -> Result<Position, String> {
    let malformed = || "message-malformed".to_owned();
    let incarnation = Incarnation::try_from(&hex_of(value, "incarnation")).map_err(|_| malformed())?;
    let hash = Hash::try_from(&hex_of(value, "hash")).map_err(|_| malformed())?;
    Position::new(incarnation, number(value, "n"), hash).map_err(|_| malformed())
}

fn shown(position: &Position) -> Value {
    json!({
        "incarnation": position.incarnation.to_string(),
        "n": position.n.to_string(),
        "hash": position.h.to_string(),
    })
}

fn take(at: &Position, n: u64, bytes: &[u8]) -> Result<Position, String> {
    let lost = |_| "position-invalid".to_owned();
    let entry = pb::Entry::decode(bytes).ok().filter(|entry| entry.r#type == entries::VOID);
    let Some(entry) = entry else {
        return at.follow(n, bytes).map_err(|error: PositionError| lost(error.to_string()));
    };
    let void = pb::Void::decode(entry.body).map_err(|error| lost(error.to_string()))?;
    let hash = Hash::try_from(&void.hash).map_err(|error| lost(error.to_string()))?;
    at.past_void(n, void.from, void.to, hash).map_err(|error| lost(error.to_string()))
}

pub(super) fn log(inputs: &Value) -> Verdict {
    let mut at = position(&inputs["position"])?;
    for shipped in inputs["entries"].as_array().expect("a list") {
        at = take(&at, number(shipped, "n"), &hex_of(shipped, "entry"))?;
    }
    Ok(shown(&at))
}

pub(super) fn compare(inputs: &Value) -> Verdict {
    let (end, other) = (position(&inputs["end"])?, position(&inputs["position"])?);
    let agreement = match end.compare(&other) {
        Agreement::Same => "same",
        Agreement::Behind => "behind",
        Agreement::OtherIncarnation => "other-incarnation",
        Agreement::Ahead | Agreement::OtherHash => return Err("position-invalid".to_owned()),
    };
    Ok(json!({"agreement": agreement}))
}

fn mark(value: &Value) -> Result<Read, String> {
    let except = value["except"].as_array().expect("a list").iter();
    let except: Vec<u64> =
        except.map(|each| each.as_str().and_then(|each| each.parse().ok()).expect("a number")).collect();
    Read::new(text(value, "upto").parse().expect("a number"), &except).map_err(|error| match error {
        ReadError::TooMany(_) => "limit-exceeded".to_owned(),
        ReadError::Order | ReadError::Outside(_) => "message-malformed".to_owned(),
    })
}

pub(super) fn watermark(inputs: &Value) -> Verdict {
    let (a, b) = (mark(&inputs["a"])?, mark(&inputs["b"])?);
    let (mut one, mut other) = (a.clone(), b.clone());
    one.merge(&b);
    other.merge(&a);
    assert_eq!(one, other, "merging is commutative");
    let except: Vec<String> = one.except().map(|each| each.to_string()).collect();
    Ok(json!({"upto": one.n().to_string(), "except": except}))
}
