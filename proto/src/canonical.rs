//! The scan that signed bodies pass before they are parsed (chapter 01).
//!
//! Protobuf has many encodings of one message and parsers differ in which they take. A signed body
//! has exactly one: fields ascending, a field that is not repeated once, varints minimal, numbers
//! within their type, text valid UTF-8, no groups, no default values written out, nothing trailing.
//! Fields the table does not know are allowed where they are well-formed and in order.
//!
//! What this module does not do: give values. The parser runs after it, on the same bytes.

/// How deep messages may nest.
const DEPTH_MAX: usize = 16;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `uint64`.
    Uint64,
    /// `uint32`, or an enumeration without negative values.
    Uint32,
    /// `bool`.
    Bool,
    /// `fixed64`.
    Fixed64,
    /// `fixed32`.
    Fixed32,
    /// `bytes`.
    Bytes,
    /// `string`.
    Text,
    /// A message.
    Message(&'static Shape),
    /// `repeated uint64` or `uint32`, packed into one field.
    Packed,
}

/// How often a field may stand, and whether its default value may be written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// At most once, never with its default value (messages: may be empty).
    Once,
    /// At most once, default value allowed: members of a `oneof`, `optional` fields.
    Present,
    /// Any number of times in a row.
    Repeated,
}

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Field number.
    pub number: u32,
    /// What it holds.
    pub kind: Kind,
    /// How often.
    pub times: Times,
}

/// The fields of a message.
#[derive(Debug)]
pub struct Shape {
    /// The message's name, for errors.
    pub name: &'static str,
    /// Its fields, in any order.
    pub fields: &'static [Field],
}

/// A field that stands at most once and never with its default value.
#[must_use]
pub const fn once(number: u32, kind: Kind) -> Field {
    Field { number, kind, times: Times::Once }
}

/// A field with presence of its own.
#[must_use]
pub const fn present(number: u32, kind: Kind) -> Field {
    Field { number, kind, times: Times::Present }
}

/// A repeated field.
#[must_use]
pub const fn repeated(number: u32, kind: Kind) -> Field {
    Field { number, kind, times: Times::Repeated }
}

/// Why bytes are not canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// The bytes end inside a field.
    #[error("{0} ends inside a field")]
    Truncated(&'static str),
    /// A varint is longer than needed or than 64 bits.
    #[error("{0} has a varint that is not minimal")]
    Varint(&'static str),
    /// Field number 0 or above 2^29 - 1.
    #[error("{0} has an impossible field number")]
    Number(&'static str),
    /// A field after one with a higher number.
    #[error("{message} field {field} is out of order")]
    Order {
        /// The message.
        message: &'static str,
        /// The field.
        field: u32,
    },
    /// A field twice that is not repeated.
    #[error("{message} field {field} stands twice")]
    Twice {
        /// The message.
        message: &'static str,
        /// The field.
        field: u32,
    },
    /// A group, or a wire type that does not exist or is not the field's.
    #[error("{message} field {field} has wire type {wire}")]
    WireType {
        /// The message.
        message: &'static str,
        /// The field.
        field: u32,
        /// The wire type.
        wire: u8,
    },
    /// A number outside its type, an empty packed field.
    #[error("{message} field {field} is outside its type")]
    Range {
        /// The message.
        message: &'static str,
        /// The field.
        field: u32,
    },
    /// Text that is not UTF-8.
    #[error("{message} field {field} is not UTF-8")]
    Utf8 {
        /// The message.
        message: &'static str,
        /// The field.
        field: u32,
    },
    /// A default value written out.
    #[error("{message} field {field} writes out its default")]
    Default {
        /// The message.
        message: &'static str,
        /// The field.
        field: u32,
    },
    /// Messages in messages, deeper than 16.
    #[error("{0} nests too deeply")]
    Depth(&'static str),
}

enum Value<'a> {
    Varint(u64),
    Fixed64(bool),
    Len(&'a [u8]),
    Fixed32(bool),
}

impl Value<'_> {
    const fn wire(&self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Len(_) => 2,
            Self::Fixed32(_) => 5,
        }
    }

    const fn is_default(&self) -> bool {
        match self {
            Self::Varint(value) => *value == 0,
            Self::Fixed64(zero) | Self::Fixed32(zero) => *zero,
            Self::Len(bytes) => bytes.is_empty(),
        }
    }
}

/// Scans a body of this shape.
///
/// # Errors
/// [`CanonicalError`]: the first departure from the one encoding.
pub fn scan(bytes: &[u8], shape: &'static Shape) -> Result<(), CanonicalError> {
    scan_at(bytes, shape, 0)
}

fn scan_at(bytes: &[u8], shape: &'static Shape, depth: usize) -> Result<(), CanonicalError> {
    let message = shape.name;
    if depth > DEPTH_MAX {
        return Err(CanonicalError::Depth(message));
    }
    let mut rest = bytes;
    let mut last = 0;
    while !rest.is_empty() {
        let (field, value) = take_field(&mut rest, message)?;
        if field < last {
            return Err(CanonicalError::Order { message, field });
        }
        let known = shape.fields.iter().find(|known| known.number == field);
        if let Some(known) = known {
            // Repeated numbers are packed into one field, so that field too stands once.
            let many = known.times == Times::Repeated && !matches!(known.kind, Kind::Packed);
            if field == last && !many {
                return Err(CanonicalError::Twice { message, field });
            }
            check(&value, known, message, depth)?;
        }
        last = field;
    }
    Ok(())
}

fn take_field<'a>(rest: &mut &'a [u8], message: &'static str) -> Result<(u32, Value<'a>), CanonicalError> {
    let tag = take_varint(rest, message)?;
    let wire = u8::try_from(tag & 7).unwrap_or(7);
    let field = u32::try_from(tag >> 3)
        .ok()
        .filter(|number| (1..1 << 29).contains(number))
        .ok_or(CanonicalError::Number(message))?;
    let value = match wire {
        0 => Value::Varint(take_varint(rest, message)?),
        1 => Value::Fixed64(take(rest, 8, message)?.iter().all(|byte| *byte == 0)),
        2 => {
            let length = usize::try_from(take_varint(rest, message)?)
                .map_err(|_| CanonicalError::Truncated(message))?;
            Value::Len(take(rest, length, message)?)
        }
        5 => Value::Fixed32(take(rest, 4, message)?.iter().all(|byte| *byte == 0)),
        _ => return Err(CanonicalError::WireType { message, field, wire }),
    };
    Ok((field, value))
}

fn check(
    value: &Value<'_>,
    known: &Field,
    message: &'static str,
    depth: usize,
) -> Result<(), CanonicalError> {
    let field = known.number;
    match (known.kind, value) {
        (Kind::Uint64, Value::Varint(_))
        | (Kind::Fixed64, Value::Fixed64(_))
        | (Kind::Fixed32, Value::Fixed32(_))
        | (Kind::Bytes, Value::Len(_)) => {}
        (Kind::Uint32, Value::Varint(number)) => {
            u32::try_from(*number).map_err(|_| CanonicalError::Range { message, field })?;
        }
        (Kind::Bool, Value::Varint(number)) => {
            if *number > 1 {
                return Err(CanonicalError::Range { message, field });
            }
        }
        (Kind::Text, Value::Len(bytes)) => {
            std::str::from_utf8(bytes).map_err(|_| CanonicalError::Utf8 { message, field })?;
        }
        (Kind::Message(inner), Value::Len(bytes)) => {
            // A message has presence of its own: an empty one is not a default.
            return scan_at(bytes, inner, depth.saturating_add(1));
        }
        (Kind::Packed, Value::Len(bytes)) => {
            let mut rest = *bytes;
            if rest.is_empty() {
                return Err(CanonicalError::Range { message, field });
            }
            while !rest.is_empty() {
                take_varint(&mut rest, message)?;
            }
        }
        _ => {
            return Err(CanonicalError::WireType { message, field, wire: value.wire() });
        }
    }
    if known.times == Times::Once && value.is_default() {
        return Err(CanonicalError::Default { message, field });
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize, message: &'static str) -> Result<&'a [u8], CanonicalError> {
    let (head, tail) = rest.split_at_checked(length).ok_or(CanonicalError::Truncated(message))?;
    *rest = tail;
    Ok(head)
}

/// Protobuf's varint: seven bits a byte, least first, at most ten bytes.
fn take_varint(rest: &mut &[u8], message: &'static str) -> Result<u64, CanonicalError> {
    let mut value = 0_u64;
    for shift in (0..70_u32).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(CanonicalError::Truncated(message))?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(CanonicalError::Varint(message));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            // A last byte of zero bits could have been left out.
            return if bits == 0 && shift > 0 { Err(CanonicalError::Varint(message)) } else { Ok(value) };
        }
    }
    Err(CanonicalError::Varint(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static INNER: Shape = Shape { name: "Inner", fields: &[once(1, Kind::Uint32)] };
    static OUTER: Shape = Shape {
        name: "Outer",
        fields: &[
            once(1, Kind::Uint64),
            once(2, Kind::Text),
            repeated(3, Kind::Bytes),
            once(4, Kind::Message(&INNER)),
            present(5, Kind::Uint32),
            once(6, Kind::Bool),
            repeated(7, Kind::Packed),
            once(8, Kind::Fixed64),
        ],
    };

    fn of(text: &str) -> Result<(), CanonicalError> {
        scan(&hex::decode(text).unwrap(), &OUTER)
    }

    #[test]
    fn canonical_bodies_pass() {
        for text in [
            "",
            "0801",
            "08ffffffffffffffffff01",
            "08011203616263",
            "1a001a0101",
            "2200",
            "22020801",
            "2800",
            "3001",
            "3a03010203",
            "410100000000000000",
            "08014a0158",
            "08014a014a4a00",
        ] {
            assert_eq!(of(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn each_departure_has_its_error() {
        let message = "Outer";
        for (text, error) in [
            ("08", CanonicalError::Truncated(message)),
            ("0880", CanonicalError::Truncated(message)),
            ("12056162", CanonicalError::Truncated(message)),
            ("088100", CanonicalError::Varint(message)),
            ("888001", CanonicalError::Truncated(message)),
            ("888000", CanonicalError::Varint(message)),
            ("08ffffffffffffffffff02", CanonicalError::Varint(message)),
            ("08ffffffffffffffffffff01", CanonicalError::Varint(message)),
            ("0001", CanonicalError::Number(message)),
            ("1201610801", CanonicalError::Order { message, field: 1 }),
            ("08010801", CanonicalError::Twice { message, field: 1 }),
            ("28012801", CanonicalError::Twice { message, field: 5 }),
            ("3a01013a0102", CanonicalError::Twice { message, field: 7 }),
            ("3a028000", CanonicalError::Varint(message)),
            ("0b0c", CanonicalError::WireType { message, field: 1, wire: 3 }),
            ("0a0101", CanonicalError::WireType { message, field: 1, wire: 2 }),
            ("1001", CanonicalError::WireType { message, field: 2, wire: 0 }),
            ("4b4c", CanonicalError::WireType { message, field: 9, wire: 3 }),
            ("1202c328", CanonicalError::Utf8 { message, field: 2 }),
            ("0800", CanonicalError::Default { message, field: 1 }),
            ("1200", CanonicalError::Default { message, field: 2 }),
            ("3000", CanonicalError::Default { message, field: 6 }),
            ("410000000000000000", CanonicalError::Default { message, field: 8 }),
            ("3002", CanonicalError::Range { message, field: 6 }),
            ("288080808010", CanonicalError::Range { message, field: 5 }),
            ("3a00", CanonicalError::Range { message, field: 7 }),
            ("220208", CanonicalError::Truncated(message)),
            ("22020800", CanonicalError::Default { message: "Inner", field: 1 }),
            ("2206088080808010", CanonicalError::Range { message: "Inner", field: 1 }),
        ] {
            assert_eq!(of(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = scan(&bytes, &OUTER);
        }
    }
}
