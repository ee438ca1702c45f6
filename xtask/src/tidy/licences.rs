//! The licences of everything that is built, and that nothing permissive of ours reaches anything copyleft.

use super::crates::{Graph, Package};
use super::settings::Licences;
use super::spdx;

pub(super) fn check(graph: &Graph, settings: &Licences) -> Vec<String> {
    let mut findings = Vec::new();
    for package in &graph.packages {
        findings.extend(finding(graph, package, settings));
    }
    let copyleft: Vec<&Package> =
        graph.packages.iter().filter(|package| is_copyleft(package, settings)).collect();
    for member in graph.members().filter(|member| !is_copyleft(member, settings)) {
        let reached = graph.reach(member);
        for package in copyleft.iter().filter(|package| reached.contains(package.id.as_str())) {
            findings.push(format!(
                "{} is under {} but depends on {}, which is under {}",
                member.name,
                member.license.as_deref().unwrap_or("no licence"),
                package.name,
                settings.copyleft
            ));
        }
    }
    for name in &settings.copyleft_packages {
        if !copyleft.iter().any(|package| package.name == *name) {
            findings.push(format!("{name} is listed as copyleft but not used: take it off the list"));
        }
    }
    findings
}

fn finding(graph: &Graph, package: &Package, settings: &Licences) -> Option<String> {
    let named = format!("{} {}", package.name, package.version);
    let Some(licence) = package.license.as_deref() else {
        return Some(format!("{named}: states no licence"));
    };
    let may_be_copyleft = graph.is_member(package) || settings.copyleft_packages.contains(&package.name);
    let allowed = |name: &str| {
        settings.allowed.iter().any(|each| each == name) || (may_be_copyleft && name == settings.copyleft)
    };
    match spdx::satisfied(licence, &allowed) {
        Ok(true) => None,
        Ok(false) => Some(format!("{named}: {licence} is not on the list")),
        Err(reason) => Some(format!("{named}: {reason}")),
    }
}

fn is_copyleft(package: &Package, settings: &Licences) -> bool {
    package.license.as_deref() == Some(settings.copyleft.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Package, REGISTRY, graph, settings};
    use super::*;

    fn findings(packages: &[Package<'_>]) -> Vec<String> {
        check(&graph(packages), &settings().licences)
    }

    const SIGNAL: Package<'static> = ("signal", "AGPL-3.0-only", REGISTRY, &[]);

    #[test]
    fn what_is_on_the_list_passes_and_copyleft_where_it_is_named() {
        let packages =
            [("high", "AGPL-3.0-only", "", &["signal"][..]), ("low", "MIT OR ISC", "", &[]), SIGNAL];
        assert_eq!(findings(&packages), Vec::<String>::new());
    }

    #[test]
    fn a_licence_that_is_not_on_the_list_is_found() {
        assert_eq!(
            findings(&[("odd", "GPL-2.0-only", REGISTRY, &[]), SIGNAL]),
            ["odd 1.0.0: GPL-2.0-only is not on the list"]
        );
        assert_eq!(findings(&[("odd", "", REGISTRY, &[]), SIGNAL]), ["odd 1.0.0: states no licence"]);
        assert_eq!(findings(&[("odd", "MIT OR", REGISTRY, &[]), SIGNAL]).len(), 1);
        assert_eq!(
            findings(&[("odd", "AGPL-3.0-only", REGISTRY, &[]), SIGNAL]).len(),
            1,
            "not named as copyleft"
        );
    }

    #[test]
    fn a_permissive_crate_that_reaches_copyleft_is_found_however_far() {
        let packages =
            [("low", "MIT", "", &["between"][..]), ("between", "MIT", REGISTRY, &["signal"]), SIGNAL];
        let found = findings(&packages);
        assert_eq!(found, ["low is under MIT but depends on signal, which is under AGPL-3.0-only"]);
    }

    #[test]
    fn a_name_on_the_copyleft_list_that_nobody_uses_is_found() {
        assert_eq!(findings(&[]), ["signal is listed as copyleft but not used: take it off the list"]);
    }
}
