//! Requirement ids: each is defined once, in a chapter, and every mention is of one that is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::settings::Requirements;
use super::{files, shown};
use crate::registry::Registry;

pub(super) fn check(
    root: &Path,
    settings: &Requirements,
    registry: &Registry,
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut defined: BTreeMap<String, String> = BTreeMap::new();
    let mut mentioned: Vec<(String, String)> = Vec::new();
    for path in files(root, &["md", "rs", "toml", "proto", "json"])? {
        let name = shown(root, &path);
        if name.starts_with("xtask/") {
            continue;
        }
        let is_chapter = name.starts_with("spec/") && name.ends_with(".md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for (number, line) in (1..).zip(text.lines()) {
            let place = format!("{name}:{number}");
            for (id, is_definition) in ids(line) {
                if is_definition && is_chapter {
                    if let Some(first) = defined.insert(id.to_owned(), place.clone()) {
                        found.push(format!("{place}: {id} is already defined in {first}"));
                    }
                } else if !settings.not_prefixes.iter().any(|each| id.split('-').next() == Some(each)) {
                    mentioned.push((id.to_owned(), place.clone()));
                }
            }
        }
    }
    for (item, id) in registry.requirement_ids() {
        mentioned.push((id.to_owned(), format!("registry, {item}")));
    }
    let retired: BTreeSet<&str> = registry.retired.iter().map(|each| each.id.as_str()).collect();
    for (id, place) in &defined {
        if retired.contains(id.as_str()) {
            found.push(format!("{place}: {id} was retired and cannot be used again"));
        }
    }
    for (id, place) in mentioned {
        if !defined.contains_key(&id) && !retired.contains(id.as_str()) {
            found.push(format!("{place}: {id} is defined nowhere"));
        }
    }
    Ok(found)
}

/// What looks like a requirement id in a line, and whether it stands as a definition, `**[ABC-123]**`.
pub(super) fn ids(line: &str) -> Vec<(&str, bool)> {
    let bytes = line.as_bytes();
    let mut found = Vec::new();
    for (dash, _) in line.match_indices('-') {
        let letters = bytes[..dash].iter().rev().take_while(|each| each.is_ascii_uppercase()).count();
        let digits = bytes[dash + 1..].iter().take_while(|each| each.is_ascii_digit()).count();
        let (start, end) = (dash - letters, dash + 1 + digits);
        let joined =
            |each: Option<&u8>| each.is_some_and(|each| each.is_ascii_alphanumeric() || *each == b'-');
        let alone = !joined(start.checked_sub(1).and_then(|at| bytes.get(at))) && !joined(bytes.get(end));
        if (2..=5).contains(&letters) && digits == 3 && alone {
            let is_definition = line[..start].ends_with("**[") && line[end..].starts_with("]**");
            found.push((&line[start..end], is_definition));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_letters_a_dash_and_three_digits() {
        assert_eq!(ids("**[MSG-012]** A home MUST"), [("MSG-012", true)]);
        assert_eq!(ids("see MSG-012, SES-003."), [("MSG-012", false), ("SES-003", false)]);
        assert!(ids("X-123 MSG-12 MSG-1234 MSG-123-4 aMSG-123").is_empty());
    }
}
