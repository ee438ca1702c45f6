//! The settings of one homeserver: a TOML file, read and checked once at start.
//!
//! Every mistake names file, key, value and what was expected; an unknown key is one.

mod limits;
mod read;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tidings_federation::policy::{Pattern, Rules};
use tidings_proto::name::Domain;
use tidings_proto::pb;

pub use limits::{LimitError, Limits};
pub use read::ConfigError;
use read::Section;

/// Who may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Everyone.
    Open,
    /// Whoever has a single-use token.
    Token,
    /// Nobody.
    Closed,
}

impl std::str::FromStr for Registration {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "open" => Ok(Self::Open),
            "token" => Ok(Self::Token),
            "closed" => Ok(Self::Closed),
            _ => Err(()),
        }
    }
}

impl From<Registration> for pb::Registration {
    fn from(registration: Registration) -> Self {
        match registration {
            Registration::Open => Self::Open,
            Registration::Token => Self::Token,
            Registration::Closed => Self::Closed,
        }
    }
}

/// A peer whose address is given rather than looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPeer {
    /// Its domain, or with `*.` before it every domain below it.
    pub pattern: Pattern,
    /// Where it is reached.
    pub address: SocketAddr,
    /// PEM file with the authority its certificate comes from; `None`: the public ones.
    pub trust_anchor: Option<PathBuf>,
}

/// All settings of one homeserver.
#[derive(Debug, Clone)]
pub struct Config {
    /// The domain it answers for.
    pub domain: Domain,
    /// UDP address it listens at. Default `[::]:443`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder that holds everything it must not lose.
    pub data: PathBuf,
    /// PEM file: certificate chain of the domain, leaf first.
    pub certificate: PathBuf,
    /// PEM file: the certificate's private key.
    pub key: PathBuf,
    /// Default `closed`.
    pub registration: Registration,
    /// Peers at fixed addresses.
    pub peers: Vec<StaticPeer>,
    /// If not empty, the only domains it talks to.
    pub allow: Vec<Pattern>,
    /// Domains it never talks to.
    pub deny: Vec<Pattern>,
    /// Whether peers that are not static are looked up by HTTPS and DNS. Default yes.
    pub discovery: bool,
    /// Limits, with the operator's changes.
    pub limits: Limits,
}

const KNOWN: &str = "domain, listen, data, registration, tls, federation, limits";
const DOMAIN: &str = "a lower-case domain name such as \"example.org\"";
const PATTERN: &str =
    "a lower-case domain name such as \"example.org\", or \"*.example.org\" for all below it";

impl Config {
    /// Settings with every default, for the domain and folder given.
    #[must_use]
    pub fn new(domain: Domain, data: impl Into<PathBuf>) -> Self {
        let data = data.into();
        Self {
            domain,
            listen: SocketAddr::from(([0_u16; 8], 443)),
            certificate: data.join("certificate.pem"),
            key: data.join("certificate-key.pem"),
            data,
            registration: Registration::Closed,
            peers: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            discovery: true,
            limits: Limits::default(),
        }
    }

    /// The allow and deny lists.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules { allow: self.allow.clone(), deny: self.deny.clone() }
    }

    /// Reads a file. Relative paths in it start at the file's folder.
    ///
    /// # Errors
    /// [`ConfigError`], for the first mistake.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: name.clone(),
            key: "(the file)".to_owned(),
            value: error.to_string(),
            expected: "settings that can be read (`tidings init DOMAIN` writes some)".to_owned(),
        })?;
        let mut config = Self::parse(&name, &text)?;
        let base = file.parent().unwrap_or_else(|| Path::new("."));
        for path in [&mut config.data, &mut config.certificate, &mut config.key] {
            *path = base.join(&*path);
        }
        for peer in &mut config.peers {
            peer.trust_anchor = peer.trust_anchor.take().map(|path| base.join(path));
        }
        Ok(config)
    }

    /// Checks settings given as text; `file` is for messages only.
    ///
    /// # Errors
    /// [`ConfigError`], for the first mistake.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let line = |error: &toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            before.matches('\n').count().saturating_add(1)
        };
        let table = text.parse::<toml::Table>().map_err(|error| ConfigError {
            file: file.to_owned(),
            key: format!("(line {})", line(&error)),
            value: error.message().to_owned(),
            expected: "TOML".to_owned(),
        })?;
        let mut root = Section::new(file, "", table);
        let domain = domain(&mut root)?;
        let data = root.needed("data", "the path of a folder")?;
        let mut config = Self::new(domain, data);
        if let Some(listen) = root.parsed("listen", "an address and port such as \"[::]:443\"")? {
            config.listen = listen;
        }
        if let Some(registration) = root.parsed("registration", "\"open\", \"token\" or \"closed\"")? {
            config.registration = registration;
        }
        if let Some(mut tls) = root.section("tls")? {
            config.certificate = tls.needed("certificate", "the path of a PEM file")?.into();
            config.key = tls.needed("key", "the path of a PEM file")?.into();
            tls.finish("certificate, key")?;
        }
        if let Some(federation) = root.section("federation")? {
            config.read_federation(federation)?;
        }
        if let Some(limits) = root.section("limits")? {
            config.read_limits(limits)?;
        }
        root.finish(KNOWN)?;
        Ok(config)
    }

    fn read_federation(&mut self, mut section: Section) -> Result<(), ConfigError> {
        for (key, list) in [("allow", &mut self.allow), ("deny", &mut self.deny)] {
            for text in
                section.texts(key, "a list of domain names, each with \"*.\" before it for all below it")?
            {
                list.push(text.parse().map_err(|_| section.error(key, &text, PATTERN))?);
            }
        }
        for mut peer in section.sections("peer")? {
            let pattern = peer.parsed("domain", PATTERN)?;
            let pattern = pattern.ok_or_else(|| peer.error("domain", "(missing)", PATTERN))?;
            let expected = "an address and port such as \"192.0.2.1:443\"";
            let address = peer
                .parsed("address", expected)?
                .ok_or_else(|| peer.error("address", "(missing)", expected))?;
            let trust_anchor = peer.text("trust_anchor", "the path of a PEM file")?.map(PathBuf::from);
            self.peers.push(StaticPeer { pattern, address, trust_anchor });
            peer.finish("domain, address, trust_anchor")?;
        }
        if let Some(discovery) = section.value("discovery") {
            let expected = "true or false";
            self.discovery =
                discovery.as_bool().ok_or_else(|| section.error("discovery", &discovery, expected))?;
        }
        section.finish("allow, deny, discovery, peer")
    }

    fn read_limits(&mut self, mut section: Section) -> Result<(), ConfigError> {
        for key in section.keys() {
            let Some(value) = section.value(&key) else {
                continue;
            };
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            let number = number.ok_or_else(|| section.error(&key, &value, "a whole number"))?;
            self.limits.set(&key, number).map_err(|error| match error {
                LimitError::Unknown => section.error(&key, &value, "a name from registry/limits.toml"),
                LimitError::Range(..) => section.error(&key, &value, error.to_string()),
            })?;
        }
        Ok(())
    }
}

fn domain(section: &mut Section) -> Result<Domain, ConfigError> {
    let text = section.needed("domain", DOMAIN)?;
    Domain::parse(&text).map_err(|_| section.error("domain", &text, DOMAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        domain = "a.test"
        data = "/tmp/a"
        listen = "127.0.0.1:4433"
        registration = "token"
        [tls]
        certificate = "a.pem"
        key = "a.key"
        [federation]
        deny = ["bad.test"]
        [[federation.peer]]
        domain = "b.test"
        address = "127.0.0.1:4434"
        trust_anchor = "ca.pem"
        [limits]
        requests_per_second = 1000
    "#;

    #[test]
    fn a_whole_file_is_read() {
        let config = Config::parse("t.toml", GOOD).expect("it is right");
        assert_eq!(config.registration, Registration::Token);
        assert_eq!(config.peers.len(), 1);
        assert_eq!(config.limits.requests_per_second(), 1000);
    }

    #[test]
    fn a_mistake_names_file_key_value_and_expectation() {
        let error = |text: &str| Config::parse("t.toml", text).expect_err("it is wrong").to_string();
        assert_eq!(
            error("domain = \"A.test\"\ndata = \"x\""),
            "t.toml: domain = A.test: expected a lower-case domain name such as \"example.org\""
        );
        assert!(
            error("domain = \"a.test\"\ndata = \"x\"\nlissen = 1")
                .starts_with("t.toml: lissen = 1: expected one of")
        );
        assert!(
            error("domain = \"a.test\"\ndata = \"x\"\n[limits]\nframe_bytes_max = 1")
                .contains("limits.frame_bytes_max = 1: expected a number from")
        );
        assert!(error("domain = \"a.test\"\n").contains("data = (missing): expected the path"));
        assert!(error("[[[").contains("TOML"));
    }
}
