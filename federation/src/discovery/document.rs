//! The document at `/.well-known/tidings` (chapter 09, 9.2.1). Bytes of anybody: nothing here panics.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use tidings_proto::name::Domain;

/// Where a home listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which host.
    pub host: PlaceHost,
    /// Which UDP port; not 0.
    pub port: u16,
}

/// The host in a [`Place`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceHost {
    /// A name to look up.
    Name(Domain),
    /// An address.
    Address(IpAddr),
}

/// Why a document does not count.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or with a repeated key.
    #[error("the document is not JSON with distinct keys: {0}")]
    Json(#[from] serde_json::Error),
    /// Something that has to be there is not, or is something else.
    #[error("{0} is missing or not valid")]
    Member(&'static str),
}

/// Reads the document of a domain.
///
/// # Errors
/// [`DocumentError`].
pub fn parse(bytes: &[u8], domain: &Domain) -> Result<Place, DocumentError> {
    let Value::Object(document) = serde_json::from_slice(bytes)? else {
        return Err(DocumentError::Member("the object"));
    };
    let Some(Value::Object(tidings)) = member(document, "tidings") else {
        return Err(DocumentError::Member("tidings"));
    };
    let (mut host, mut port) = (None, None);
    for (key, value) in tidings {
        match (key.as_str(), value) {
            ("host", Value::Text(text)) => host = Some(text),
            ("port", Value::Number(number)) => port = u16::try_from(number).ok().filter(|port| *port > 0),
            _ => {}
        }
    }
    let host = host.ok_or(DocumentError::Member("host"))?;
    let host = if host.is_empty() {
        PlaceHost::Name(domain.clone())
    } else if let Ok(address) = host.parse() {
        PlaceHost::Address(address)
    } else {
        PlaceHost::Name(Domain::parse(&host).map_err(|_| DocumentError::Member("host"))?)
    };
    Ok(Place { host, port: port.ok_or(DocumentError::Member("port"))? })
}

fn member(object: Vec<(String, Value)>, name: &str) -> Option<Value> {
    object.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// JSON in which no object names a key twice.
enum Value {
    Object(Vec<(String, Self)>),
    Text(String),
    Number(u64),
    Other,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut seen, mut members) = (BTreeSet::new(), Vec::new());
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom("a repeated key"));
            }
            members.push((key, value));
        }
        Ok(Value::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<Value>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Place, DocumentError> {
        parse(text.as_bytes(), &Domain::parse("a.example").unwrap())
    }

    #[test]
    fn a_document_names_host_and_port() {
        let place = read(r#"{"tidings": {"host": "tidings.a.example", "port": 443, "x": [{}]}, "y": null}"#);
        let host = PlaceHost::Name(Domain::parse("tidings.a.example").unwrap());
        assert_eq!(place.unwrap(), Place { host, port: 443 });
        let place = read(r#"{"tidings": {"host": "", "port": 1}}"#).unwrap();
        assert_eq!(place.host, PlaceHost::Name(Domain::parse("a.example").unwrap()));
        let place = read(r#"{"tidings": {"host": "2606:4700::1", "port": 65535}}"#).unwrap();
        assert_eq!(place.host, PlaceHost::Address("2606:4700::1".parse().unwrap()));
    }

    #[test]
    fn what_is_missing_wrong_or_repeated_makes_it_invalid() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"tidings": {"host": "a.example"}}"#,
            r#"{"tidings": {"host": "a.example", "port": 0}}"#,
            r#"{"tidings": {"host": "a.example", "port": 65536}}"#,
            r#"{"tidings": {"host": "a.example", "port": "443"}}"#,
            r#"{"tidings": {"host": "a.example", "port": 443.0}}"#,
            r#"{"tidings": {"host": "[::1]", "port": 443}}"#,
            r#"{"tidings": {"host": "A.example", "port": 443}}"#,
            r#"{"tidings": {"host": "a.example", "host": "a.example", "port": 443}}"#,
            r#"{"tidings": {"host": "a.example", "port": 443}, "x": {"y": 1, "y": 1}}"#,
            r#"{"tidings": {"host": "a.example", "port": 443}} x"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&"[".repeat(4096)).is_err(), "deep nesting");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _any = parse(&bytes, &Domain::parse("a.example").unwrap());
        }

        #[test]
        fn no_damaged_document_makes_it_panic(at in 0_usize..60, byte in proptest::num::u8::ANY) {
            let mut bytes = br#"{"tidings": {"host": "tidings.a.example", "port": 443}, "x": [1]}"#.to_vec();
            bytes[at] = byte;
            let _any = parse(&bytes, &Domain::parse("a.example").unwrap());
        }
    }
}
