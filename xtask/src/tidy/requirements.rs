//! Requirement ids: each is defined once, in a chapter, and every mention is of one that is defined. Error codes that
//! chapters name are registered.

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
    let retired = registry.retired.iter().map(|each| each.id.as_str()).collect();
    let errors = registry.errors.iter().map(|each| each.name.as_str()).collect();
    examine(root, settings, &Known { retired, errors, ids: registry.requirement_ids() })
}

/// What the registry knows.
struct Known<'a> {
    retired: BTreeSet<&'a str>,
    errors: BTreeSet<&'a str>,
    /// Ids that items name, with the item.
    ids: Vec<(String, &'a str)>,
}

fn examine(root: &Path, settings: &Requirements, known: &Known<'_>) -> anyhow::Result<Vec<String>> {
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
            if is_chapter {
                let unknown = codes(line).into_iter().filter(|code| !known.errors.contains(code));
                found.extend(unknown.map(|code| format!("{place}: there is no error `{code}`")));
            }
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
    for (item, id) in &known.ids {
        mentioned.push(((*id).to_owned(), format!("registry, {item}")));
    }
    let retired = &known.retired;
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

/// The error codes in a line, as the text writes them: "code `name`".
pub(crate) fn codes(line: &str) -> Vec<&str> {
    line.split("code `").skip(1).filter_map(|rest| rest.split('`').next()).collect()
}

/// What looks like a requirement id in a line, and whether it stands as a definition, `**[ABC-123]**`.
pub(crate) fn ids(line: &str) -> Vec<(&str, bool)> {
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
    use super::super::fixtures::{Folder, settings};
    use super::*;

    fn findings(name: &str, files: &[(&str, &str)]) -> Vec<String> {
        let folder = Folder::new(&format!("requirements-{name}"), files);
        let known = Known {
            retired: BTreeSet::from(["MSG-009"]),
            errors: BTreeSet::from(["too-large"]),
            ids: vec![("error too-large".into(), "MSG-001")],
        };
        examine(folder.path(), &settings().requirements, &known).expect("the folder can be read")
    }

    const CHAPTER: (&str, &str) =
        ("spec/06.md", "**[MSG-001]** A home MUST refuse it with code `too-large`.\n");

    #[test]
    fn ids_are_letters_a_dash_and_three_digits() {
        assert_eq!(ids("**[MSG-012]** A home MUST"), [("MSG-012", true)]);
        assert_eq!(ids("see MSG-012, SES-003."), [("MSG-012", false), ("SES-003", false)]);
        assert!(ids("X-123 MSG-12 MSG-1234 MSG-123-4 aMSG-123").is_empty());
    }

    #[test]
    fn ids_that_are_defined_and_words_that_are_none_pass() {
        let code = ("server/a.rs", "// MSG-001, and SHA-256\n");
        assert_eq!(findings("good", &[CHAPTER, code]), Vec::<String>::new());
    }

    #[test]
    fn an_id_that_is_defined_twice_is_found() {
        let found = findings("twice", &[CHAPTER, ("spec/07.md", "**[MSG-001]** A home MAY.\n")]);
        assert_eq!(found, ["spec/07.md:1: MSG-001 is already defined in spec/06.md:1"]);
    }

    #[test]
    fn an_id_that_is_defined_nowhere_is_found_in_text_code_and_vectors() {
        for path in ["spec/07.md", "server/a.rs", "spec/vectors/x/y.json", "proto/a.proto", "a.toml"] {
            let found = findings("nowhere", &[CHAPTER, (path, "see MSG-002\n")]);
            assert_eq!(found, [format!("{path}:1: MSG-002 is defined nowhere")]);
        }
        let found = findings("registry", &[]);
        assert_eq!(found, ["registry, error too-large: MSG-001 is defined nowhere"]);
    }

    #[test]
    fn a_retired_id_that_is_defined_again_is_found() {
        let found = findings("retired", &[CHAPTER, ("spec/07.md", "**[MSG-009]** A home MUST.\n")]);
        assert_eq!(found, ["spec/07.md:1: MSG-009 was retired and cannot be used again"]);
    }

    #[test]
    fn an_error_code_that_is_not_registered_is_found() {
        let found = findings("code", &[CHAPTER, ("spec/07.md", "refuse with code `too-big`\n")]);
        assert_eq!(found, ["spec/07.md:1: there is no error `too-big`"]);
    }
}
