//! Names on the wire: domains, user parts, addresses (chapter 01).
//!
//! A domain is lower-case ASCII letters, digits and hyphens in labels (A-labels for other scripts),
//! at most 253 bytes, with no trailing dot, port or address literal. A user part is
//! `[a-z0-9][a-z0-9._-]{0,62}`. Anything else is an error: nothing is folded or trimmed, so that
//! equal names are equal bytes.
//!
//! What this module does not do: show names to people (U-labels), or resolve them.

use std::fmt;
use std::str::FromStr;

/// Bytes a domain may have.
pub const DOMAIN_BYTES_MAX: usize = 253;
/// Bytes one label of a domain may have.
pub const LABEL_BYTES_MAX: usize = 63;
/// Bytes a user part may have.
pub const USER_BYTES_MAX: usize = 63;

/// Why text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("name is empty")]
    Empty,
    /// A domain above 253 bytes or a user part above 63.
    #[error("name has {0} bytes, more than allowed")]
    TooLong(usize),
    /// A label of a domain is empty: a leading, double or trailing dot.
    #[error("domain has an empty label")]
    EmptyLabel,
    /// A label above 63 bytes.
    #[error("domain label has {0} bytes, more than 63")]
    LabelTooLong(usize),
    /// A byte that may not stand where it does.
    #[error("byte {byte:#04x} is not allowed at {at}")]
    Byte {
        /// The byte.
        byte: u8,
        /// Its place.
        at: usize,
    },
    /// A label starts or ends with a hyphen.
    #[error("domain label starts or ends with a hyphen")]
    Hyphen,
    /// A label has hyphens in the third and fourth place and is no valid A-label.
    #[error("domain label is reserved or not a valid A-label")]
    ALabel,
    /// An IPv4 address, or a name whose last label is a number.
    #[error("address literals are not domains")]
    AddressLiteral,
    /// Not exactly one `@`.
    #[error("address takes one @")]
    At,
}

macro_rules! text {
    ($name:ident, $check:ident) => {
        impl $name {
            /// Checks text and takes it as it is.
            ///
            /// # Errors
            /// [`NameError`] says what is wrong; nothing is mended.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                $check(text).map(|()| Self(text.to_owned()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A domain as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

/// The user part of an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User(String);

text!(Domain, check_domain);
text!(User, check_user);

/// `user@domain`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    user: User,
    domain: Domain,
}

impl Address {
    /// An address of checked parts.
    #[must_use]
    pub const fn new(user: User, domain: Domain) -> Self {
        Self { user, domain }
    }

    /// Checks text and takes it as it is.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong; nothing is mended.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (user, domain) = text.split_once('@').ok_or(NameError::At)?;
        if domain.contains('@') {
            return Err(NameError::At);
        }
        Ok(Self { user: User::parse(user)?, domain: Domain::parse(domain)? })
    }

    /// The part before the `@`.
    #[must_use]
    pub const fn user(&self) -> &User {
        &self.user
    }

    /// The part after the `@`.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl FromStr for Address {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.domain)
    }
}

fn check_user(text: &str) -> Result<(), NameError> {
    match text.len() {
        0 => return Err(NameError::Empty),
        length if length > USER_BYTES_MAX => return Err(NameError::TooLong(length)),
        _ => {}
    }
    for (at, byte) in text.bytes().enumerate() {
        let allowed = match byte {
            b'a'..=b'z' | b'0'..=b'9' => true,
            b'.' | b'_' | b'-' => at > 0,
            _ => false,
        };
        if !allowed {
            return Err(NameError::Byte { byte, at });
        }
    }
    Ok(())
}

fn check_domain(text: &str) -> Result<(), NameError> {
    match text.len() {
        0 => return Err(NameError::Empty),
        length if length > DOMAIN_BYTES_MAX => return Err(NameError::TooLong(length)),
        _ => {}
    }
    for (at, byte) in text.bytes().enumerate() {
        if !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.') {
            return Err(NameError::Byte { byte, at });
        }
    }
    text.split('.').try_for_each(check_label)?;
    // A last label of digits only, or 0x and hexadecimal digits, is read as an IPv4 address by URL parsers.
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal =
        last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if numeric || hexadecimal { Err(NameError::AddressLiteral) } else { Ok(()) }
}

fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(NameError::LabelTooLong(label.len()));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    if label.get(2..4) != Some("--") {
        return Ok(());
    }
    let (unicode, outcome) = idna::domain_to_unicode(label);
    let valid = label.starts_with("xn--")
        && outcome.is_ok()
        && !unicode.is_ascii()
        && idna::domain_to_ascii_strict(&unicode).is_ok_and(|ascii| ascii == label);
    if valid { Ok(()) } else { Err(NameError::ALabel) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_pass() {
        for text in ["a.example", "localhost", "xn--bcher-kva.example", "1.example", "a-b.c0"] {
            assert_eq!(Domain::parse(text).map(|d| d.to_string()), Ok(text.to_owned()));
        }
        let address: Address = "alice.b_c-1@example.org".parse().unwrap();
        assert_eq!((address.user().as_str(), address.domain().as_str()), ("alice.b_c-1", "example.org"));
        assert_eq!(address.to_string(), "alice.b_c-1@example.org");
    }

    #[test]
    fn domains_are_refused_and_never_folded() {
        let long = format!("{}.example", "a".repeat(64));
        let longer = ["a"; 128].join(".");
        for (text, error) in [
            ("", NameError::Empty),
            ("Example.org", NameError::Byte { byte: b'E', at: 0 }),
            ("example.org.", NameError::EmptyLabel),
            (".example.org", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("example.org:443", NameError::Byte { byte: b':', at: 11 }),
            ("[::1]", NameError::Byte { byte: b'[', at: 0 }),
            ("127.0.0.1", NameError::AddressLiteral),
            ("1.2.3.0x7f", NameError::AddressLiteral),
            ("-a.example", NameError::Hyphen),
            ("a-.example", NameError::Hyphen),
            ("a_b.example", NameError::Byte { byte: b'_', at: 1 }),
            ("ab--c.example", NameError::ALabel),
            ("xn--a.example", NameError::ALabel),
            ("xn--.example", NameError::Hyphen),
            ("b\u{fc}cher.example", NameError::Byte { byte: 0xc3, at: 1 }),
            (" a.example", NameError::Byte { byte: b' ', at: 0 }),
            (long.as_str(), NameError::LabelTooLong(64)),
            (longer.as_str(), NameError::TooLong(255)),
        ] {
            assert_eq!(Domain::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn users_are_refused_and_never_folded() {
        let long = "a".repeat(64);
        for text in ["", ".a", "-a", "_a", "A", "a b", "a+b", "\u{e4}", long.as_str()] {
            assert!(User::parse(text).is_err(), "{text}");
        }
        assert!(User::parse(&long[1..]).is_ok());
    }

    #[test]
    fn an_address_takes_one_at() {
        for text in ["", "a", "a@b@c", "@b", "a@", "a@b.", "A@b"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,80}") {
            let _ = Address::parse(&text);
            let _ = Domain::parse(&text);
        }

        #[test]
        fn what_parses_prints_as_it_was(text in "[a-z0-9.@_-]{1,40}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
