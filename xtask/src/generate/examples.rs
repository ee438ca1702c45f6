//! Examples for the text, from `spec/vectors`: bytes of frames, each run named, and single vectors.
//!
//! Names: `example:FRAME` (the bytes of a frame, as `02-session/messages.json` has them), `vector:ID`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Digits of hexadecimal text in one line.
const DIGITS: usize = 66;

/// Every vector by its id.
#[derive(Default)]
pub(super) struct Vectors {
    by_id: BTreeMap<String, Value>,
}

impl Vectors {
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut by_id = BTreeMap::new();
        let folder = root.join("spec/vectors");
        if !folder.is_dir() {
            return Ok(Self::default());
        }
        for path in crate::tidy::files(&folder, &["json"])? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let file: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            for vector in file["vectors"].as_array().context("a file of vectors has `vectors`")? {
                let id = vector["id"].as_str().context("a vector has an `id`")?.to_owned();
                if by_id.insert(id.clone(), vector.clone()).is_some() {
                    bail!("{}: {id} stands twice", path.display());
                }
            }
        }
        Ok(Self { by_id })
    }

    /// The lines between markers of that name; `None` if it is none of this part's names.
    pub(super) fn block(&self, name: &str) -> Option<anyhow::Result<String>> {
        match name.split_once(':')? {
            ("example", frame) => Some(self.example(frame)),
            ("vector", id) => Some(self.vector(id)),
            _ => None,
        }
    }

    fn example(&self, frame: &str) -> anyhow::Result<String> {
        let is_it = |vector: &&Value| vector["output"]["frame"] == frame && vector["steps"].is_array();
        let vector =
            self.by_id.values().find(is_it).with_context(|| format!("no vector of a frame {frame}"))?;
        let mut out = String::from("```\n");
        for part in vector["steps"].as_array().into_iter().flatten() {
            let (Some(hex), Some(what)) = (part[0].as_str(), part[1].as_str()) else {
                bail!("a step of {} is not hexadecimal text and a name", vector["id"]);
            };
            if what.is_empty() {
                lines_of(hex, "  ", &mut out);
            } else {
                let _ = writeln!(out, "{hex:<8}  {what}");
            }
        }
        out.push_str("```\n");
        Ok(out)
    }

    fn vector(&self, id: &str) -> anyhow::Result<String> {
        let vector = self.by_id.get(id).with_context(|| format!("no vector {id}"))?;
        let text = |name: &str| vector[name].as_str().unwrap_or_default();
        let mut out = format!("```\n{id}: {}; {}", text("comment"), text("result"));
        if !text("expect").is_empty() {
            let _ = write!(out, ", {}", text("expect"));
        }
        out.push('\n');
        for part in ["inputs", "steps", "output"] {
            flatten(&vector[part], part, &mut out);
        }
        out.push_str("```\n");
        Ok(out)
    }
}

/// Every leaf with its path; long text in lines of its own.
fn flatten(value: &Value, path: &str, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                flatten(inner, &format!("{path}.{name}"), out);
            }
        }
        Value::Array(items) => {
            for (place, inner) in items.iter().enumerate() {
                flatten(inner, &format!("{path}.{place}"), out);
            }
        }
        Value::Null => {}
        Value::String(text) if text.len() > DIGITS => {
            let _ = writeln!(out, "{path} =");
            lines_of(text, "  ", out);
        }
        Value::String(text) => {
            let _ = writeln!(out, "{path} = {text}");
        }
        plain => {
            let _ = writeln!(out, "{path} = {plain}");
        }
    }
}

fn lines_of(text: &str, indent: &str, out: &mut String) {
    let digits: Vec<char> = text.chars().collect();
    for line in digits.chunks(DIGITS) {
        let _ = writeln!(out, "{indent}{}", line.iter().collect::<String>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn vectors() -> Vectors {
        let ping = json!({
            "id": "messages-007", "comment": "ping", "result": "valid", "expect": null,
            "inputs": {"bytes": "0c020a00"},
            "steps": [["0c", "type: ping"], ["02", "length: 2 bytes"], ["0a00", "opaque: 0 bytes"], ["ab".repeat(40), ""]],
            "output": {"frame": "ping"},
        });
        Vectors { by_id: BTreeMap::from([("messages-007".to_owned(), ping)]) }
    }

    #[test]
    fn an_example_names_each_run_of_bytes() {
        let block = vectors().block("example:ping").unwrap().unwrap();
        let lines: Vec<&str> = block.lines().collect();
        assert_eq!(lines[..3], ["```", "0c        type: ping", "02        length: 2 bytes"]);
        assert_eq!(lines[4..6], [format!("  {}", "ab".repeat(33)), format!("  {}", "ab".repeat(7))]);
    }

    #[test]
    fn a_vector_is_shown_leaf_by_leaf() {
        let block = vectors().block("vector:messages-007").unwrap().unwrap();
        assert!(block.starts_with("```\nmessages-007: ping; valid\ninputs.bytes = 0c020a00\n"), "{block}");
        assert!(block.ends_with("output.frame = ping\n```\n"), "{block}");
    }

    #[test]
    fn what_is_not_there_is_an_error_and_other_names_are_left_to_others() {
        assert!(vectors().block("example:pong").unwrap().is_err());
        assert!(vectors().block("vector:messages-008").unwrap().is_err());
        assert!(vectors().block("frame:ping").is_none() && vectors().block("frames").is_none());
    }
}
