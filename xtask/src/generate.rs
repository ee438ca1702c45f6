//! `xtask gen`: the registry into tables of the text and constants of the code, the vectors into examples of the text.
//!
//! A table stands in a chapter between `<!-- gen:NAME -->` and `<!-- /gen:NAME -->`, each alone on its line;
//! `tables.rs` and `examples.rs` know the names.

mod examples;
mod rust;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::registry::Registry;
use crate::tidy::{codes, ids};
use examples::Vectors;

/// What to do with a file that is out of date.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    Check,
}

pub(crate) fn run(root: &Path, mode: Mode) -> anyhow::Result<()> {
    let outdated = outdated(root, mode)?;
    if outdated.is_empty() {
        return Ok(());
    }
    match mode {
        Mode::Write => {
            println!("written: {}", outdated.join(", "));
            Ok(())
        }
        Mode::Check => bail!("out of date, run `cargo xtask gen`: {}", outdated.join(", ")),
    }
}

/// The files that are not what they would be made to be; written where the mode says so.
pub(crate) fn outdated(root: &Path, mode: Mode) -> anyhow::Result<Vec<String>> {
    let mut registry = Registry::read(root)?;
    let vectors = Vectors::read(root)?;
    let mut outdated = Vec::new();
    for (path, text) in rust::files(root, &registry)? {
        put(root, &path, &text, mode, &mut outdated)?;
    }
    let chapters = chapters(root)?;
    let mut raised = BTreeMap::<String, Vec<String>>::new();
    for path in &chapters {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        for (code, id) in raises(&text) {
            raised.entry(code.to_owned()).or_default().push(id.to_owned());
        }
    }
    for error in &mut registry.errors {
        error.reqs.extend(raised.remove(&error.name).unwrap_or_default());
        error.reqs.sort();
        error.reqs.dedup();
    }
    for path in chapters {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let filled = fill(&text, &registry, &vectors).with_context(|| path.display().to_string())?;
        put(root, &path, &filled, mode, &mut outdated)?;
    }
    Ok(outdated)
}

fn put(root: &Path, path: &Path, text: &str, mode: Mode, outdated: &mut Vec<String>) -> anyhow::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    outdated.push(path.strip_prefix(root).unwrap_or(path).display().to_string());
    if mode == Mode::Write {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The Markdown files of the specification, annexes included.
pub(crate) fn chapters(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [root.join("spec"), root.join("spec/annexes")] {
        if !folder.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The error codes that requirements name, each with the requirement's id.
fn raises(text: &str) -> Vec<(&str, &str)> {
    let id = |line: &str| ids(line).first().filter(|(_, is_definition)| *is_definition).is_some();
    let lines = text.lines().filter(|line| line.starts_with("**[") && id(line));
    lines.flat_map(|line| codes(line).into_iter().map(move |code| (code, ids(line)[0].0))).collect()
}

/// The text with every marked place filled anew.
fn fill(text: &str, registry: &Registry, vectors: &Vectors) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        out.push_str(line);
        let Some(name) = opening(line) else { continue };
        let table = vectors.block(name).unwrap_or_else(|| tables::table(registry, name));
        let table = table.with_context(|| format!("<!-- gen:{name} -->"))?;
        out.push_str(&table);
        let end = format!("<!-- /gen:{name} -->");
        loop {
            let inside = lines.next().with_context(|| format!("no {end} after <!-- gen:{name} -->"))?;
            ensure!(opening(inside).is_none(), "no {end} before the next marker");
            if inside.trim() == end {
                out.push_str(inside);
                break;
            }
        }
    }
    Ok(out)
}

/// The name in a line `<!-- gen:NAME -->`.
pub(crate) fn opening(line: &str) -> Option<&str> {
    line.trim().strip_prefix("<!-- gen:")?.strip_suffix(" -->")
}

/// Whether a line is `<!-- /gen:NAME -->`.
pub(crate) fn is_closing(line: &str) -> bool {
    line.trim().starts_with("<!-- /gen:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a folder above it");
        Registry::read(root).expect("the registry of this repository is in order")
    }

    #[test]
    fn what_stands_between_markers_is_replaced_and_the_rest_kept() {
        let text = "a\n<!-- gen:frame:hello -->\nold\n<!-- /gen:frame:hello -->\nb\n";
        let filled = fill(text, &registry(), &Vectors::default()).expect("the markers are in order");
        assert!(
            filled.starts_with("a\n<!-- gen:frame:hello -->\n|  | `hello` |\n|---|---|\n| code point | 0x00")
        );
        assert!(filled.ends_with("|\n<!-- /gen:frame:hello -->\nb\n") && !filled.contains("old"));
        assert_eq!(
            fill(&filled, &registry(), &Vectors::default()).expect("the markers are in order"),
            filled
        );
    }

    #[test]
    fn requirements_raise_the_codes_that_they_name() {
        let text = "**[MSG-001]** A home MUST refuse it with code `too-large`, or code `expired`.\n\n\
                    see MSG-001 and code `poison`\n";
        assert_eq!(raises(text), [("too-large", "MSG-001"), ("expired", "MSG-001")]);
    }

    #[test]
    fn a_marker_that_is_unknown_or_not_closed_is_refused() {
        for text in ["<!-- gen:nonsense -->\n<!-- /gen:nonsense -->\n", "<!-- gen:frames -->\nmore\n"] {
            assert!(fill(text, &registry(), &Vectors::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn every_documented_table_has_rows() {
        for name in [
            "frames",
            "frames:control",
            "entries",
            "entry:void",
            "links:server",
            "links:account",
            "errors",
            "errors:connection",
            "limits",
            "limits:advertised",
            "limits:fixed",
            "capabilities",
            "purposes",
            "profiles",
            "retired",
        ] {
            assert!(tables::table(&registry(), name).is_ok(), "{name}");
        }
    }

    #[test]
    fn markers_are_recognised_alone_on_their_line() {
        assert_eq!(opening("<!-- gen:frames -->\n"), Some("frames"));
        assert_eq!(opening("see <!-- gen:frames -->"), None);
        assert_eq!(opening("<!-- /gen:frames -->"), None);
        assert!(is_closing("<!-- /gen:frames -->\n"));
    }
}
