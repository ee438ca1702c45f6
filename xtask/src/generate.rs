//! `xtask gen`: the registry into tables of the text and constants of the code.
//!
//! A table stands in a chapter between `<!-- gen:NAME -->` and `<!-- /gen:NAME -->`, each alone on its line;
//! `tables.rs` knows the names.

mod rust;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::registry::Registry;

/// What to do with a file that is out of date.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    Check,
}

pub(crate) fn run(root: &Path, mode: Mode) -> anyhow::Result<()> {
    let registry = Registry::read(root)?;
    let mut outdated = Vec::new();
    for (path, text) in rust::files(root, &registry)? {
        put(root, &path, &text, mode, &mut outdated)?;
    }
    for path in chapters(root)? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let filled = fill(&text, &registry).with_context(|| path.display().to_string())?;
        put(root, &path, &filled, mode, &mut outdated)?;
    }
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

/// The text with every marked place filled anew.
fn fill(text: &str, registry: &Registry) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        out.push_str(line);
        let Some(name) = opening(line) else { continue };
        let table = tables::table(registry, name).with_context(|| format!("<!-- gen:{name} -->"))?;
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
        let filled = fill(text, &registry()).expect("the markers are in order");
        assert!(
            filled.starts_with("a\n<!-- gen:frame:hello -->\n|  | `hello` |\n|---|---|\n| code point | 0x00")
        );
        assert!(filled.ends_with("|\n<!-- /gen:frame:hello -->\nb\n") && !filled.contains("old"));
        assert_eq!(fill(&filled, &registry()).expect("the markers are in order"), filled);
    }

    #[test]
    fn a_marker_that_is_unknown_or_not_closed_is_refused() {
        for text in ["<!-- gen:nonsense -->\n<!-- /gen:nonsense -->\n", "<!-- gen:frames -->\nmore\n"] {
            assert!(fill(text, &registry()).is_err(), "{text}");
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
