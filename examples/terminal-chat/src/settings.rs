//! What stands beside the store: how the home is reached, and what was typed and not sent.
//!
//! `FILE.options` has one `key = value` a line. `FILE.drafts` has one draft a line: the account, a space, and the
//! text with line feeds and backslashes escaped. Neither is needed: without them the options are asked for again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tidings_client::{AccountId, Options, Trust};

use crate::args::Common;

/// The file beside a store.
fn beside(store: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(store);
    name.push(ending);
    PathBuf::from(name)
}

/// Where devices are kept if nothing else is said.
fn data_folder() -> anyhow::Result<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".local").join("share"));
    Ok(data.or_else(home).context("there is no data folder: name a file with --store")?.join("tidings"))
}

/// The store's file: the one named, the one for `name`, or the only one there is.
pub(crate) fn store(named: Option<&Path>, name: Option<&str>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return std::path::absolute(named).context("the store's path");
    }
    let folder = data_folder()?;
    if let Some(name) = name {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        return Ok(folder.join(format!("{name}.device")));
    }
    let entries =
        std::fs::read_dir(&folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut found = entries
        .iter()
        .map(std::fs::DirEntry::path)
        .filter(|path| path.extension() == Some("device".as_ref()));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => {
            bail!("there is no device in {}: begin with `register ADDRESS` or `join CODE`", folder.display())
        }
        _ => bail!("there are several devices in {}: name one with --store", folder.display()),
    }
}

/// The SDK's options: what the command line says, else what was remembered.
pub(crate) fn options(common: &Common, store: PathBuf) -> anyhow::Result<Options> {
    let remembered = read_options(&beside(&store, ".options"))?;
    let server = common.server.clone().or_else(|| remembered.get("server").cloned());
    let ca = common.ca.clone().or_else(|| remembered.get("ca").map(PathBuf::from));
    let trust = match &ca {
        Some(file) => {
            Trust::Pem(std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?)
        }
        None => Trust::Web,
    };
    let server = server.as_deref().map(resolve).transpose()?;
    Ok(Options { store, server, trust })
}

/// Writes down what the command line said, once it has worked.
pub(crate) fn remember(common: &Common, store: &Path) -> anyhow::Result<()> {
    if common.server.is_none() && common.ca.is_none() {
        return Ok(());
    }
    let file = beside(store, ".options");
    let mut remembered = read_options(&file)?;
    if let Some(server) = &common.server {
        remembered.insert("server".to_owned(), server.clone());
    }
    if let Some(ca) = &common.ca {
        let ca = std::path::absolute(ca)?;
        remembered.insert("ca".to_owned(), ca.to_str().context("the path of --ca is no text")?.to_owned());
    }
    let text: String = remembered.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    std::fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))
}

fn read_options(file: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
    };
    let pair = |line: &str| line.split_once(" = ").map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

fn resolve(server: &str) -> anyhow::Result<SocketAddr> {
    let mut found = server
        .to_socket_addrs()
        .with_context(|| format!("{server} is not HOST:PORT, or the host is unknown"))?;
    found.next().with_context(|| format!("{server} has no address"))
}

/// The drafts that were kept. A broken line is left out: a draft is not worth refusing to start.
pub(crate) fn drafts(store: &Path) -> BTreeMap<AccountId, String> {
    let text = std::fs::read_to_string(beside(store, ".drafts")).unwrap_or_default();
    let pair =
        |line: &str| line.split_once(' ').and_then(|(id, text)| Some((id.parse().ok()?, unescape(text))));
    text.lines().filter_map(pair).collect()
}

/// Keeps drafts, or removes the file if there are none.
pub(crate) fn keep_drafts(store: &Path, drafts: &BTreeMap<AccountId, String>) -> std::io::Result<()> {
    let file = beside(store, ".drafts");
    if drafts.is_empty() {
        return match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let text: String = drafts.iter().map(|(account, text)| format!("{account} {}\n", escape(text))).collect();
    std::fs::write(file, text)
}

/// One line for any text: line feed, carriage return, tab and backslash are escaped.
pub(crate) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

/// The text that [`escape`] made a line of.
pub(crate) fn unescape(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let c = if c == '\\' {
            chars.next().unwrap_or('\\')
        } else {
            out.push(c);
            continue;
        };
        out.push(match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            other => other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(server: Option<&str>) -> Common {
        Common {
            store: None,
            server: server.map(str::to_owned),
            ca: None,
            plain: false,
            deadline: 1,
            log: None,
        }
    }

    #[test]
    fn a_line_of_escapes_reads_back() {
        for text in ["", "a\nb", "\\n", "tab\tcr\r\\", "日本\n\n"] {
            assert_eq!(unescape(&escape(text)), text);
            assert!(!escape(text).contains('\n'));
        }
    }

    #[test]
    fn options_are_remembered_beside_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("x.device");
        remember(&common(Some("127.0.0.1:7")), &store).unwrap();
        let options = options(&common(None), store.clone()).unwrap();
        assert_eq!(options.server, Some(([127, 0, 0, 1], 7).into()));
        remember(&common(None), &store).unwrap();
        assert_eq!(
            super::options(&common(Some("127.0.0.1:8")), store).unwrap().server.map(|s| s.port()),
            Some(8)
        );
    }

    #[test]
    fn drafts_survive_and_leave_no_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("x.device");
        let kept = BTreeMap::from([(AccountId([7; 32]), "two\nlines".to_owned())]);
        keep_drafts(&store, &kept).unwrap();
        assert_eq!(drafts(&store), kept);
        keep_drafts(&store, &BTreeMap::new()).unwrap();
        assert_eq!(drafts(&store), BTreeMap::new());
        keep_drafts(&store, &BTreeMap::new()).unwrap();
    }
}
