//! For tests: a folder with files in it, a graph of crates, settings.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::crates::Graph;
use super::settings::Settings;

/// A folder that is there until it is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// `name` is the test's own.
    pub(super) fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn settings() -> Settings {
    let text = r#"
        [edges]
        low = []
        high = ["low"]
        [wrappers]
        quinn = ["low"]
        [licences]
        allowed = ["MIT"]
        copyleft = "AGPL-3.0-only"
        copyleft_packages = ["signal"]
        targets = []
        [sizes]
        file_lines_max = 5
        function_lines_max = 3
        [requirements]
        not_prefixes = ["SHA"]
        chapter_words_max = 30
        whole_words_max = 50
    "#;
    toml::from_str(text).expect("settings")
}

/// A package: name, licence, where it is from (empty: this workspace), what it depends on.
pub(super) type Package<'a> = (&'a str, &'a str, &'a str, &'a [&'a str]);

pub(super) const REGISTRY: &str = "registry+https://example.org/index";

pub(super) fn graph(packages: &[Package<'_>]) -> Graph {
    let dependencies = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Value>();
    let package = |(name, licence, source, used): &Package<'_>| {
        json!({
            "id": name, "name": name, "version": "1.0.0",
            "license": (!licence.is_empty()).then_some(licence),
            "source": (!source.is_empty()).then_some(source),
            "dependencies": dependencies(used),
        })
    };
    let members = packages.iter().filter(|(_, _, source, _)| source.is_empty()).map(|(name, ..)| *name);
    let graph = json!({
        "packages": packages.iter().map(package).collect::<Value>(),
        "workspace_members": members.collect::<Vec<_>>(),
        "resolve": {"nodes": packages.iter().map(|(name, _, _, used)| json!({"id": name, "dependencies": used})).collect::<Value>()},
    });
    serde_json::from_value(graph).expect("a graph")
}
