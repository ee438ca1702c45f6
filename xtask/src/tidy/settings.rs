//! `xtask/tidy.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Our crate → those of our crates that it may depend on.
    pub(super) edges: BTreeMap<String, Vec<String>>,
    /// Library → those of our crates that may depend on it.
    pub(super) wrappers: BTreeMap<String, Vec<String>>,
    pub(super) licences: Licences,
    pub(super) sizes: Sizes,
    pub(super) requirements: Requirements,
    #[serde(default, rename = "exception")]
    pub(super) exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Licences {
    pub(super) allowed: Vec<String>,
    pub(super) copyleft: String,
    pub(super) copyleft_packages: Vec<String>,
    pub(super) targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sizes {
    pub(super) file_lines_max: usize,
    pub(super) function_lines_max: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requirements {
    pub(super) not_prefixes: Vec<String>,
    pub(super) chapter_words_max: usize,
    pub(super) whole_words_max: usize,
}

/// A file or function that may be longer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exception {
    pub(super) path: String,
    pub(super) function: Option<String>,
    pub(super) lines: usize,
    pub(super) reason: String,
}

impl Settings {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}
