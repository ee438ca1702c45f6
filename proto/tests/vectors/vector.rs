//! The shape of a file of vectors, and its one way to be written.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// A file: vectors of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Folder below `spec/vectors`: the chapter.
    pub(crate) chapter: String,
    /// The file's name, and what its ids begin with.
    pub(crate) name: String,
    /// What one vector of this file asks.
    pub(crate) question: String,
    pub(crate) vectors: Vec<Vector>,
}

/// One vector; `spec/vectors/README.md` says what the fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) reqs: Vec<String>,
    pub(crate) comment: String,
    pub(crate) result: Outcome,
    pub(crate) expect: Option<String>,
    pub(crate) flags: Vec<String>,
    pub(crate) inputs: Value,
    pub(crate) steps: Value,
    pub(crate) output: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Valid,
    Invalid,
}

impl File {
    pub(crate) fn new(chapter: &str, name: &str, question: &str) -> Self {
        let vectors = Vec::new();
        Self { chapter: chapter.into(), name: name.into(), question: question.into(), vectors }
    }

    pub(crate) fn valid(
        &mut self,
        reqs: &[&str],
        comment: &str,
        inputs: Value,
        output: Value,
    ) -> &mut Vector {
        let vector = self.add(reqs, comment, inputs);
        vector.output = output;
        vector
    }

    /// `expect` is the code of the refusal; empty where the text has no code for it.
    pub(crate) fn invalid(
        &mut self,
        reqs: &[&str],
        comment: &str,
        expect: &str,
        inputs: Value,
    ) -> &mut Vector {
        let vector = self.add(reqs, comment, inputs);
        vector.result = Outcome::Invalid;
        vector.expect = (!expect.is_empty()).then(|| expect.into());
        vector
    }

    fn add(&mut self, reqs: &[&str], comment: &str, inputs: Value) -> &mut Vector {
        self.vectors.push(Vector {
            id: format!("{}-{:03}", self.name, self.vectors.len() + 1),
            reqs: reqs.iter().map(|id| (*id).to_owned()).collect(),
            comment: comment.into(),
            result: Outcome::Valid,
            expect: None,
            flags: Vec::new(),
            inputs,
            steps: Value::Null,
            output: Value::Null,
        });
        self.vectors.last_mut().expect("one was added")
    }

    pub(crate) fn path(&self) -> PathBuf {
        folder().join(&self.chapter).join(format!("{}.json", self.name))
    }

    /// As JSON: fields in this order, keys of objects sorted, two blanks for each level.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::from("{\n");
        for (key, value) in [("chapter", &self.chapter), ("name", &self.name), ("question", &self.question)] {
            let _ = writeln!(out, "  \"{key}\": {},", quoted(value));
        }
        out.push_str("  \"vectors\": [\n");
        for (place, vector) in self.vectors.iter().enumerate() {
            vector.write(&mut out);
            out.push_str(if place + 1 == self.vectors.len() { "\n" } else { ",\n" });
        }
        out.push_str("  ]\n}\n");
        out
    }
}

impl Vector {
    pub(crate) fn flag(&mut self, flag: &str) -> &mut Self {
        self.flags.push(flag.into());
        self
    }

    pub(crate) fn steps(&mut self, steps: Value) -> &mut Self {
        self.steps = steps;
        self
    }

    fn write(&self, out: &mut String) {
        let expect = self.expect.clone().map_or(Value::Null, Value::String);
        let result = match self.result {
            Outcome::Valid => "valid",
            Outcome::Invalid => "invalid",
        };
        out.push_str("    {\n");
        let fields = [
            ("id", Value::from(self.id.as_str())),
            ("reqs", Value::from(self.reqs.clone())),
            ("comment", Value::from(self.comment.as_str())),
            ("result", Value::from(result)),
            ("expect", expect),
            ("flags", Value::from(self.flags.clone())),
            ("inputs", self.inputs.clone()),
            ("steps", self.steps.clone()),
            ("output", self.output.clone()),
        ];
        let last = fields.len() - 1;
        for (place, (key, value)) in fields.iter().enumerate() {
            let _ = write!(out, "      \"{key}\": ");
            write_value(value, 3, out);
            out.push_str(if place == last { "\n" } else { ",\n" });
        }
        out.push_str("    }");
    }
}

fn write_value(value: &Value, depth: usize, out: &mut String) {
    let indent = |out: &mut String, depth: usize| out.push_str(&"  ".repeat(depth));
    match value {
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            let _ = write!(out, "[{}]", items.join(", "));
        }
        Value::Array(items) => {
            out.push_str("[\n");
            for (place, item) in items.iter().enumerate() {
                indent(out, depth + 1);
                write_value(item, depth + 1, out);
                out.push_str(if place + 1 == items.len() { "\n" } else { ",\n" });
            }
            indent(out, depth);
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            out.push_str("{\n");
            for (place, (key, item)) in fields.iter().enumerate() {
                indent(out, depth + 1);
                let _ = write!(out, "{}: ", quoted(key));
                write_value(item, depth + 1, out);
                out.push_str(if place + 1 == fields.len() { "\n" } else { ",\n" });
            }
            indent(out, depth);
            out.push('}');
        }
        plain => {
            let _ = write!(out, "{plain}");
        }
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `spec/vectors`.
pub(crate) fn folder() -> PathBuf {
    let proto = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    proto.parent().expect("proto lies in a folder of the repository").join("spec").join("vectors")
}
