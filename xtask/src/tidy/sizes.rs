//! Lengths of hand-written Rust files and of their functions.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::lines::functions;
use super::settings::{Exception, Settings};
use super::{files, shown};

pub(super) fn check(root: &Path, settings: &Settings) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut used = vec![false; settings.exceptions.len()];
    for path in files(root, &["rs"])? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if text.starts_with("// @generated") {
            continue;
        }
        let path = shown(root, &path);
        let mut allowed = |function: Option<&str>, default: usize| {
            let applies = |each: &Exception| each.path == path && each.function.as_deref() == function;
            match settings.exceptions.iter().position(applies) {
                Some(place) => {
                    used[place] = true;
                    settings.exceptions[place].lines
                }
                None => default,
            }
        };
        let lines = text.lines().count();
        let most = allowed(None, settings.sizes.file_lines_max);
        if lines > most {
            found.push(format!("{path}: {lines} lines, at most {most}"));
        }
        for function in functions(&text) {
            let most = allowed(Some(&function.name), settings.sizes.function_lines_max);
            if function.lines > most {
                found.push(format!(
                    "{path}:{}: fn {} has {} lines, at most {most}",
                    function.line, function.name, function.lines
                ));
            }
        }
    }
    for (exception, used) in settings.exceptions.iter().zip(used) {
        let what = exception.function.as_deref().unwrap_or("the file");
        if !used {
            found.push(format!("exception for {what} in {}: there is no such thing", exception.path));
        }
        if exception.reason.is_empty() {
            found.push(format!("exception for {what} in {}: gives no reason", exception.path));
        }
    }
    Ok(found)
}
