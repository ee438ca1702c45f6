//! `tidings serve`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tidings_proto::name::Domain;

use crate::config::{Config, Registration};
use crate::identity;
use crate::lifecycle::{self, End, Signals};
use crate::node::{self, Node};

/// Runs the homeserver.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The settings.
    #[arg(long, required_unless_present = "dev")]
    config: Option<PathBuf>,
    /// A server for trying things: localhost, a throw-away certificate authority, open registration.
    #[arg(long, conflicts_with = "config")]
    dev: bool,
    /// With --dev: the folder that keeps it.
    #[arg(long, default_value = "tidings-dev")]
    data: PathBuf,
    /// With --dev: the UDP port on localhost.
    #[arg(long, default_value_t = 4433)]
    port: u16,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let file = self.config;
        let config = match &file {
            Some(file) => Config::load(file)?,
            None => dev(&self.data, self.port)?,
        };
        let domain = config.domain.clone();
        let authority = self.dev.then(|| self.data.join("ca.pem"));
        let mut signals = Signals::listen().context("signals")?;
        loop {
            let node = Node::start(config.clone()).await.context("the server did not start")?;
            println!("{domain} listens at {} (UDP)", node.local_addr());
            tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
            if let Some(authority) = &authority {
                println!("certificate authority for clients: {}", authority.display());
            }
            match lifecycle::run(&mut signals, node, file.as_deref()).await {
                End::Asked => return Ok(()),
                End::Again => tracing::warn!("starting again with the chain that others held"),
            }
        }
    }
}

fn dev(folder: &Path, port: u16) -> anyhow::Result<Config> {
    let domain = Domain::parse("localhost").context("the name of this machine")?;
    fs::create_dir_all(folder)?;
    if !identity::exists(folder) {
        identity::create(folder, &domain, node::random::<32>)?;
    }
    let mut config = Config::new(domain, folder);
    if !config.certificate.exists() {
        certificate(folder, &config)?;
    }
    config.listen = ([127, 0, 0, 1], port).into();
    config.registration = Registration::Open;
    Ok(config)
}

/// A certificate authority and a certificate of it, for this machine only.
fn certificate(folder: &Path, config: &Config) -> anyhow::Result<()> {
    let authority_key = rcgen::KeyPair::generate()?;
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate()?;
    let leaf = rcgen::CertificateParams::new(vec![config.domain.to_string()])?.signed_by(&key, &issuer)?;
    fs::write(folder.join("ca.pem"), authority_certificate.pem())?;
    fs::write(&config.key, key.serialize_pem())?;
    fs::write(&config.certificate, leaf.pem())?;
    Ok(())
}
