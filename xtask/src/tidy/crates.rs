//! Who depends on whom: what `cargo metadata` says against the edges and wrappers of `tidy.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::settings::Settings;

/// All packages of the workspace and what they depend on.
#[derive(Deserialize)]
pub(super) struct Graph {
    pub(super) packages: Vec<Package>,
    pub(super) workspace_members: Vec<String>,
    pub(super) resolve: Resolve,
}

#[derive(Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    pub(super) source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
}

#[derive(Deserialize)]
pub(super) struct Resolve {
    pub(super) nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) dependencies: Vec<String>,
}

impl Graph {
    pub(super) fn read(root: &Path, targets: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root).args(["metadata", "--format-version=1"]);
        for target in targets {
            command.args(["--filter-platform", target]);
        }
        let output = command.output().context("cargo metadata does not start")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("cargo metadata is not as expected")
    }

    /// The crates of this workspace.
    pub(super) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.is_member(package))
    }

    pub(super) fn is_member(&self, package: &Package) -> bool {
        self.workspace_members.contains(&package.id)
    }

    /// Everything that a package depends on, directly or not.
    pub(super) fn reach<'a>(&'a self, package: &'a Package) -> BTreeSet<&'a str> {
        let edges: BTreeMap<&str, &Node> =
            self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut reached = BTreeSet::new();
        let mut open = vec![package.id.as_str()];
        while let Some(id) = open.pop() {
            let next = edges.get(id).into_iter().flat_map(|node| &node.dependencies);
            open.extend(next.map(String::as_str).filter(|id| reached.insert(*id)));
        }
        reached
    }
}

pub(super) fn check(graph: &Graph, settings: &Settings) -> Vec<String> {
    let mut findings = Vec::new();
    let members: BTreeSet<&str> = graph.members().map(|package| package.name.as_str()).collect();
    for package in graph.members() {
        let name = package.name.as_str();
        let Some(allowed) = settings.edges.get(name) else {
            findings.push(format!("{name}: not in the table of edges (xtask/tidy.toml)"));
            continue;
        };
        let used: BTreeSet<&str> = package.dependencies.iter().map(|used| used.name.as_str()).collect();
        for used in used {
            if members.contains(used) && !allowed.iter().any(|each| each == used) {
                findings.push(format!("{name} -> {used}: not an allowed edge"));
            }
            if let Some(wrappers) = settings.wrappers.get(used)
                && !wrappers.iter().any(|each| each == name)
            {
                findings.push(format!("{name} -> {used}: only {} depend on it", wrappers.join(", ")));
            }
        }
    }
    for package in &graph.packages {
        let from = package.source.as_deref();
        if !graph.is_member(package) && !from.is_some_and(|source| source.starts_with("registry+")) {
            findings.push(format!("{}: comes from {}", package.name, from.unwrap_or("a path outside")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Package, REGISTRY, graph, settings};
    use super::*;

    fn findings(packages: &[Package<'_>]) -> Vec<String> {
        check(&graph(packages), &settings())
    }

    #[test]
    fn allowed_edges_pass() {
        let packages = [
            ("low", "MIT", "", &["quinn"][..]),
            ("high", "MIT", "", &["low"]),
            ("quinn", "MIT", REGISTRY, &[]),
        ];
        assert_eq!(findings(&packages), Vec::<String>::new());
    }

    #[test]
    fn an_edge_that_is_not_allowed_is_found() {
        let found = findings(&[("low", "MIT", "", &["high"]), ("high", "MIT", "", &[])]);
        assert_eq!(found, ["low -> high: not an allowed edge"]);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(
            findings(&[("new", "MIT", "", &[])]),
            ["new: not in the table of edges (xtask/tidy.toml)"]
        );
    }

    #[test]
    fn a_library_that_only_others_use_is_found() {
        let found = findings(&[("high", "MIT", "", &["quinn"]), ("quinn", "MIT", REGISTRY, &[])]);
        assert_eq!(found, ["high -> quinn: only low depend on it"]);
    }

    #[test]
    fn packages_come_from_a_registry_only() {
        let found =
            findings(&[("low", "MIT", "", &["odd"]), ("odd", "MIT", "git+https://example.org/odd", &[])]);
        assert_eq!(found, ["odd: comes from git+https://example.org/odd"]);
    }
}
