//! The constants written beside the code say what the registry says.

use crate::{chain, codec, entries, frame, frames, limits, links, sign, watermark};

fn limit(name: &str) -> u64 {
    let found = limits::ALL.iter().find(|limit| limit.name == name);
    found.unwrap_or_else(|| panic!("no limit {name}")).default
}

#[test]
fn sizes_are_those_of_the_registry() {
    for (name, here) in [
        ("frame_bytes_max", frame::FRAME_BYTES_MAX),
        ("control_frame_bytes_max", frame::CONTROL_FRAME_BYTES_MAX),
        ("link_bytes_max", chain::LINK_BYTES_MAX),
        ("devices_max", chain::account::DEVICES_MAX),
        ("server_links_max", chain::server::LINKS_MAX),
        ("read_exceptions_max", watermark::EXCEPT_MAX),
        ("group_members_max", chain::group::MEMBERS_MAX),
        ("group_link_bytes_max", chain::group::BULK_LINK_BYTES_MAX),
        ("group_small_link_bytes_max", chain::group::SMALL_LINK_BYTES_MAX),
        ("group_keepers_max", chain::group::KEEPERS_MAX),
        ("group_profile_bytes_max", chain::group::PROFILE_BYTES_MAX),
        ("group_features_max", chain::group::FEATURES_MAX),
    ] {
        assert_eq!(limit(name), here as u64, "{name}");
    }
    assert_eq!(limit("account_links_max"), chain::account::LINKS_MAX);
    assert_eq!(limit("group_checkpoint_links"), chain::group::CHECKPOINT_LINKS);
}

#[test]
fn every_frame_of_the_registry_is_known_to_the_codec_and_no_other() {
    for code in 0..0x100 {
        assert_eq!(frames::name(code), codec::name_of(code), "{code:#x}");
    }
}

#[test]
fn links_and_entries_have_the_registered_codes() {
    assert_eq!(links::account::CLOSE_ACCOUNT, 0x0e);
    assert_eq!(links::server::NEW_INCARNATION, 0x06);
    assert_eq!(links::group::CHECKPOINT, 0x1a);
    assert_eq!(entries::name(entries::VOID), Some("void"));
    assert_eq!(entries::name(0x100), None);
}

#[test]
fn every_purpose_is_a_word_of_the_registry() {
    for purpose in sign::Purpose::ALL {
        assert!(crate::purposes::ALL.contains(&purpose.as_str()), "{}", purpose.as_str());
    }
}
