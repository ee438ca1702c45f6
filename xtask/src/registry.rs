//! Reads `spec/registry/*.toml` and refuses what contradicts itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The whole registry.
pub(crate) struct Registry {
    pub(crate) frames: Vec<Frame>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) links: Vec<Link>,
    pub(crate) errors: Vec<Error>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) purposes: Vec<Purpose>,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) retired: Vec<Retired>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Frame {
    pub(crate) code: u64,
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) sender: String,
    pub(crate) stream: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) answer: String,
    pub(crate) since: String,
    pub(crate) doc: String,
    #[serde(default)]
    pub(crate) reqs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) code: u64,
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) log: String,
    #[serde(default)]
    pub(crate) key: String,
    pub(crate) since: String,
    pub(crate) doc: String,
    #[serde(default)]
    pub(crate) reqs: Vec<String>,
}

impl Entry {
    pub(crate) fn in_log(&self, log: &str) -> bool {
        self.log.split(',').map(str::trim).any(|each| each == log || each == "any")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    pub(crate) chain: String,
    pub(crate) code: u64,
    pub(crate) name: String,
    pub(crate) field: String,
    pub(crate) field_number: u32,
    pub(crate) signers: String,
    pub(crate) since: String,
    pub(crate) doc: String,
    #[serde(default)]
    pub(crate) reqs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Error {
    pub(crate) code: u32,
    pub(crate) name: String,
    pub(crate) scope: String,
    pub(crate) retry: String,
    pub(crate) show: bool,
    pub(crate) text: String,
    pub(crate) since: String,
    #[serde(default)]
    pub(crate) reqs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) default: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) unit: String,
    pub(crate) advertised: bool,
    #[serde(default)]
    pub(crate) beyond: String,
    pub(crate) why: String,
    pub(crate) since: String,
    #[serde(default)]
    pub(crate) reqs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capability {
    pub(crate) code: u64,
    pub(crate) name: String,
    pub(crate) since: String,
    #[serde(default)]
    pub(crate) sunset: String,
    pub(crate) doc: String,
    #[serde(default)]
    pub(crate) reqs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Purpose {
    pub(crate) name: String,
    #[serde(rename = "use")]
    pub(crate) usage: String,
    pub(crate) since: String,
    pub(crate) doc: String,
    #[serde(default)]
    pub(crate) reqs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) since: String,
    pub(crate) doc: String,
    #[serde(default)]
    pub(crate) reqs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retired {
    pub(crate) id: String,
    pub(crate) since: String,
    pub(crate) why: String,
}

impl Registry {
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let folder = root.join("spec/registry");
        let mut registry = Self {
            frames: table(&folder, "frames", "frame")?,
            entries: table(&folder, "entries", "entry")?,
            links: table(&folder, "links", "link")?,
            errors: table(&folder, "errors", "error")?,
            limits: table(&folder, "limits", "limit")?,
            capabilities: table(&folder, "capabilities", "capability")?,
            purposes: table(&folder, "purposes", "purpose")?,
            profiles: table(&folder, "profiles", "profile")?,
            retired: table(&folder, "retired", "retired")?,
        };
        registry.check()?;
        registry.check_messages(&root.join("proto/tidings/v1"))?;
        registry.frames.sort_by_key(|frame| frame.code);
        registry.entries.sort_by_key(|entry| entry.code);
        registry.errors.sort_by_key(|error| error.code);
        registry.limits.sort_by_key(|limit| limit.id);
        registry.capabilities.sort_by_key(|capability| capability.code);
        Ok(registry)
    }

    /// Every requirement id that an item names, with the item.
    pub(crate) fn requirement_ids(&self) -> Vec<(String, &str)> {
        let frames = self.frames.iter().map(|item| ("frame", &item.name, &item.reqs));
        let entries = self.entries.iter().map(|item| ("entry", &item.name, &item.reqs));
        let links = self.links.iter().map(|item| ("link", &item.name, &item.reqs));
        let errors = self.errors.iter().map(|item| ("error", &item.name, &item.reqs));
        let limits = self.limits.iter().map(|item| ("limit", &item.name, &item.reqs));
        let capabilities = self.capabilities.iter().map(|item| ("capability", &item.name, &item.reqs));
        let purposes = self.purposes.iter().map(|item| ("purpose", &item.name, &item.reqs));
        let profiles = self.profiles.iter().map(|item| ("profile", &item.name, &item.reqs));
        let items = frames.chain(entries).chain(links).chain(errors).chain(limits);
        items
            .chain(capabilities)
            .chain(purposes)
            .chain(profiles)
            .flat_map(|(kind, name, ids)| ids.iter().map(move |id| (format!("{kind} {name}"), id.as_str())))
            .collect()
    }

    fn check(&self) -> anyhow::Result<()> {
        unique("frames", self.frames.iter().map(|item| (item.code, item.name.as_str())))?;
        unique("entries", self.entries.iter().map(|item| (item.code, item.name.as_str())))?;
        unique("errors", self.errors.iter().map(|item| (u64::from(item.code), item.name.as_str())))?;
        unique("limits", self.limits.iter().map(|item| (u64::from(item.id), item.name.as_str())))?;
        unique("capabilities", self.capabilities.iter().map(|item| (item.code, item.name.as_str())))?;
        unique("purposes", numbered(self.purposes.iter().map(|item| item.name.as_str())))?;
        unique("profiles", numbered(self.profiles.iter().map(|item| item.name.as_str())))?;
        for chain in ["server", "account", "group"] {
            let links = self.links.iter().filter(|link| link.chain == chain);
            unique("links", links.map(|link| (link.code, link.name.as_str())))?;
        }
        for link in &self.links {
            one_of("link", &link.name, &link.chain, &["server", "account", "group"])?;
        }
        self.check_codes()?;
        self.check_references()
    }

    /// Codes of the form 0x3e*N + 0x21 are grease: nothing is ever registered there.
    fn check_codes(&self) -> anyhow::Result<()> {
        let frames = self.frames.iter().map(|item| (item.code, &item.name));
        let entries = self.entries.iter().map(|item| (item.code, &item.name));
        let links = self.links.iter().map(|item| (item.code, &item.name));
        let capabilities = self.capabilities.iter().map(|item| (item.code, &item.name));
        for (code, name) in frames.chain(entries).chain(links).chain(capabilities) {
            ensure!(code < 0x21 || (code - 0x21) % 0x3e != 0, "{name}: {code:#x} is a grease code");
        }
        Ok(())
    }

    fn check_references(&self) -> anyhow::Result<()> {
        let frames: BTreeSet<&str> = self.frames.iter().map(|frame| frame.name.as_str()).collect();
        for frame in &self.frames {
            one_of("frame", &frame.name, &frame.sender, &["opener", "acceptor", "both"])?;
            one_of("frame", &frame.name, &frame.stream, &STREAMS)?;
            if !frame.answer.is_empty() {
                ensure!(
                    frames.contains(frame.answer.as_str()),
                    "frame {}: answer {} is no frame",
                    frame.name,
                    frame.answer
                );
            }
        }
        let errors: BTreeSet<&str> = self.errors.iter().map(|error| error.name.as_str()).collect();
        for error in &self.errors {
            one_of("error", &error.name, &error.scope, &["request", "stream", "connection"])?;
            one_of(
                "error",
                &error.name,
                &error.retry,
                &["never", "after-repair", "after-delay", "elsewhere"],
            )?;
        }
        for limit in &self.limits {
            ensure!(
                (limit.min..=limit.max).contains(&limit.default),
                "limit {}: the default is outside minimum and maximum",
                limit.name
            );
            if !limit.beyond.is_empty() {
                ensure!(
                    errors.contains(limit.beyond.as_str()),
                    "limit {}: {} is no error",
                    limit.name,
                    limit.beyond
                );
            }
        }
        Ok(())
    }

    /// Every message that the registry names is in the `.proto` files.
    fn check_messages(&self, folder: &Path) -> anyhow::Result<()> {
        let mut text = String::new();
        for file in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            text.push_str(&fs::read_to_string(file?.path())?);
        }
        let frames = self.frames.iter().map(|frame| &frame.message);
        for message in frames.chain(self.entries.iter().map(|entry| &entry.message)) {
            if !text.contains(&format!("message {message} {{")) {
                bail!("the registry names a message {message}, but no .proto file has it");
            }
        }
        Ok(())
    }
}

/// The kinds of streams a frame can belong to, in the registry's words.
pub(crate) const STREAMS: [&str; 8] =
    ["control", "pipeline", "local", "remote", "submit", "event", "link", "any"];

fn table<T: DeserializeOwned>(folder: &Path, file: &str, key: &str) -> anyhow::Result<Vec<T>> {
    let path = folder.join(format!("{file}.toml"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut tables: BTreeMap<String, Vec<T>> =
        toml::from_str(&text).with_context(|| path.display().to_string())?;
    let items = tables.remove(key).unwrap_or_default();
    if let Some(other) = tables.keys().next() {
        bail!("{}: [[{other}]] is not expected, only [[{key}]]", path.display());
    }
    Ok(items)
}

fn numbered<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = (u64, &'a str)> {
    (0..).zip(names)
}

fn unique<'a>(what: &str, items: impl Iterator<Item = (u64, &'a str)>) -> anyhow::Result<()> {
    let mut codes = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (code, name) in items {
        ensure!(codes.insert(code), "{what}: code {code:#x} stands twice");
        ensure!(names.insert(name), "{what}: {name} stands twice");
    }
    Ok(())
}

fn one_of(kind: &str, name: &str, value: &str, allowed: &[&str]) -> anyhow::Result<()> {
    ensure!(allowed.contains(&value), "{kind} {name}: {value:?} is none of {allowed:?}");
    Ok(())
}
