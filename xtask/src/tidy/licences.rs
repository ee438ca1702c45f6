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
