//! `tidings init DOMAIN`: the data folder of a new server, and commented settings for it.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use tidings_proto::name::Domain;

use crate::{identity, node};

pub(super) fn run(domain: &Domain, data: &Path, config: &Path) -> anyhow::Result<()> {
    identity::create(data, domain, node::random::<32>).context("the server's identity could not be made")?;
    println!("Made the identity of {domain} in {}.", data.display());
    println!("Move server-root.key to a safe place offline: the server runs without it.");
    if config.exists() {
        println!("{} is there already and stays as it is.", config.display());
        return Ok(());
    }
    // Paths in the settings start at the settings' folder; only an absolute one means the same everywhere.
    let data = std::path::absolute(data)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(config)?;
    file.write_all(settings(domain, &data).as_bytes())?;
    println!(
        "Wrote {}: put the certificate's paths in, then `tidings serve --config {0}`.",
        config.display()
    );
    Ok(())
}

/// Settings with every key, its default and what it is for.
fn settings(domain: &Domain, data: &Path) -> String {
    format!(
        r#"# Settings of the Tidings homeserver of {domain}. Read at start; the allow and deny lists also on SIGHUP.
# Paths that are not absolute start at this file's folder.

# The domain whose users live here. It never changes.
domain = "{domain}"

# The folder with everything that must not be lost: keys, chain, database. Back it up; after restoring a
# copy run `tidings new-incarnation` before the server starts.
data = {data:?}

# UDP address and port. Clients and other homes use this one. Default: "[::]:443".
listen = "[::]:443"

# Who may make an account: "open", "token" (see `tidings invite`) or "closed". Default: "closed".
registration = "token"

[tls]
# Certificate chain and key for {domain} in PEM, for instance from an ACME client. Read at start.
certificate = "certificate.pem"
key = "certificate-key.pem"

[federation]
# Look up other domains by HTTPS and DNS. Without it only the peers below are known. Default: true.
discovery = true
# If not empty, the only domains this home talks to. "*.example.org" means all below it.
allow = []
# Domains this home never talks to.
deny = []

# A home at a fixed address, with its own trust anchor if its certificate is not from a public authority:
# [[federation.peer]]
# domain = "other.example"
# address = "192.0.2.1:443"
# trust_anchor = "other-ca.pem"

[limits]
# Any limit of the specification's registry, within its range. What differs from the default is told to clients.
# requests_per_second = 100
"#,
        data = data.display().to_string()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_written_is_read_back() {
        let domain = Domain::parse("a.test").expect("a domain");
        let text = settings(&domain, Path::new("/var/lib/tidings \"x\""));
        let config = Config::parse("written", &text).expect("its own settings");
        assert_eq!(config.data, Path::new("/var/lib/tidings \"x\""));
        assert!(config.discovery && config.peers.is_empty());
    }
}
