//! Names: what is taken is taken as it is, reads back, and stands in one form only.

use std::mem::discriminant;

use tidings_proto::name::{Address, Domain, User};

use super::outcome;

pub(super) fn run(data: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(data) else { return 0 };
    let address = Address::parse(text);
    if let Ok(address) = &address {
        assert_eq!(address.to_string(), text, "an address is taken as it is");
        assert_eq!(Domain::parse(address.domain().as_str()).as_ref(), Ok(address.domain()));
        assert_eq!(User::parse(address.user().as_str()).as_ref(), Ok(address.user()));
        assert_eq!(text.matches('@').count(), 1);
    }
    let domain = Domain::parse(text);
    if let Ok(domain) = &domain {
        check(domain.as_str(), text);
    }
    let user = User::parse(text);
    if let Ok(user) = &user {
        check(user.as_str(), text);
    }
    outcome((
        text.len().min(320) / 32,
        address.map(|_| ()).map_err(|error| discriminant(&error)),
        domain.map(|_| ()).map_err(|error| discriminant(&error)),
        user.map(|_| ()).map_err(|error| discriminant(&error)),
    ))
}

fn check(name: &str, text: &str) {
    assert_eq!(name, text, "a name is taken as it is");
    assert!(name.is_ascii() && !name.is_empty(), "names are of ASCII");
    assert!(
        !name.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_control()),
        "names have one form"
    );
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "alice@a.example".to_owned(),
        "a.b-c_d@chat.example.org".to_owned(),
        "xn--bcher-kva.example".to_owned(),
        "localhost".to_owned(),
        format!("{}@{}.example", "a".repeat(31), "b".repeat(63)),
        format!("{}example", "abcdefg.".repeat(30)),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}
