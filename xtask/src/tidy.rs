//! `xtask tidy`: rules that no compiler checks. Each part gives its findings; all are printed.

mod crates;
#[cfg(test)]
mod fixtures;
mod licences;
mod lines;
mod prose;
mod requirements;
mod settings;
mod sizes;
mod spdx;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::generate;
use crate::registry::Registry;
pub(crate) use requirements::{codes, ids};
use settings::Settings;

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let settings = Settings::read(&root.join("xtask/tidy.toml"))?;
    let graph = crates::Graph::read(root, &settings.licences.targets)?;
    let registry = Registry::read(root)?;

    let generated = generate::outdated(root, generate::Mode::Check)?;
    let parts = [
        ("edges between crates", crates::check(&graph, &settings)),
        ("licences", licences::check(&graph, &settings.licences)),
        ("sizes", sizes::check(root, &settings)?),
        ("requirements", requirements::check(root, &settings.requirements, &registry)?),
        (
            "generated tables and constants",
            generated.into_iter().map(|file| format!("{file}: out of date")).collect(),
        ),
        ("prose of the specification", prose::check(root, &settings.requirements)?),
    ];
    let mut findings = 0;
    for (part, found) in parts {
        println!("{part}: {}", if found.is_empty() { "in order" } else { "see below" });
        for finding in &found {
            println!("  {finding}");
        }
        findings += found.len();
    }
    if findings > 0 {
        bail!("{findings} findings");
    }
    Ok(())
}

/// Files below `root` with one of these extensions, without build output and hidden folders.
pub(crate) fn files(root: &Path, extensions: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                let skipped = name.starts_with('.') || name == "target" || name == "node_modules";
                if !skipped {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| extensions.iter().any(|each| found == *each)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A path as people write it: from the repository's root.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
