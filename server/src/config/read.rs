//! Reading TOML tables so that a mistake names file, key, value and what was expected.

use std::fmt;

use toml::{Table, Value};

/// A mistake in the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {key} = {value}: expected {expected}")]
pub struct ConfigError {
    /// The file it stands in.
    pub file: String,
    /// The key, with the tables it is in.
    pub key: String,
    /// The value found.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

/// One table; every key has to be taken, what is left over is unknown.
pub(super) struct Section {
    file: String,
    prefix: String,
    table: Table,
}

impl Section {
    pub(super) fn new(file: &str, prefix: &str, table: Table) -> Self {
        Self { file: file.to_owned(), prefix: prefix.to_owned(), table }
    }

    pub(super) fn error(
        &self,
        key: &str,
        value: impl fmt::Display,
        expected: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    pub(super) fn value(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    pub(super) fn text(&mut self, key: &str, expected: &str) -> Result<Option<String>, ConfigError> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(key, other, expected)),
        }
    }

    pub(super) fn needed(&mut self, key: &str, expected: &str) -> Result<String, ConfigError> {
        self.text(key, expected)?.ok_or_else(|| self.error(key, "(missing)", expected))
    }

    pub(super) fn parsed<T: std::str::FromStr>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key, expected)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| self.error(key, &text, expected))
    }

    pub(super) fn texts(&mut self, key: &str, expected: &str) -> Result<Vec<String>, ConfigError> {
        let Some(value) = self.table.remove(key) else {
            return Ok(Vec::new());
        };
        let Value::Array(items) = &value else {
            return Err(self.error(key, value, expected));
        };
        items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| self.error(key, item, expected)))
            .collect()
    }

    pub(super) fn section(&mut self, key: &str) -> Result<Option<Self>, ConfigError> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::Table(table)) => {
                Ok(Some(Self::new(&self.file, &format!("{}{key}.", self.prefix), table)))
            }
            Some(other) => Err(self.error(key, other, "a table")),
        }
    }

    pub(super) fn sections(&mut self, key: &str) -> Result<Vec<Self>, ConfigError> {
        let Some(value) = self.table.remove(key) else {
            return Ok(Vec::new());
        };
        let Value::Array(items) = value else {
            return Err(self.error(key, value, "an array of tables"));
        };
        let mut sections = Vec::new();
        for (place, item) in items.into_iter().enumerate() {
            match item {
                Value::Table(table) => {
                    sections.push(Self::new(&self.file, &format!("{}{key}[{place}].", self.prefix), table))
                }
                other => return Err(self.error(key, other, "an array of tables")),
            }
        }
        Ok(sections)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self, known: &str) -> Result<(), ConfigError> {
        match self.table.iter().next() {
            None => Ok(()),
            Some((key, value)) => Err(self.error(key, value, format!("one of the known keys: {known}"))),
        }
    }
}
