//! The stage: a throw-away certificate authority, three domains, and a homeserver process for each.
//!
//! Certificates are verified like any others; only the authority is one of our own, which each side is told to
//! trust. A homeserver is a process, so that it can be killed like one.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tidings_client::{Options, Trust};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Time a homeserver has to say that it listens.
const START: Duration = Duration::from_secs(20);
/// Time a homeserver has to end by itself after it was asked to.
const STOP: Duration = Duration::from_secs(10);

/// The first argument by which this program runs as one of its homeservers.
pub(crate) const AS_HOMESERVER: &str = "homeserver";

/// A local certificate authority; it lives as long as the folder.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Tidings demonstration");
        let certificate = params.self_signed(&key)?;
        Ok(Self { pem: certificate.pem(), issuer: rcgen::Issuer::new(params, key) })
    }

    fn certify(&self, domain: &str, folder: &Path) -> anyhow::Result<()> {
        let key = rcgen::KeyPair::generate()?;
        let leaf = rcgen::CertificateParams::new(vec![domain.to_owned()])?.signed_by(&key, &self.issuer)?;
        std::fs::write(folder.join("certificate.pem"), leaf.pem())?;
        std::fs::write(folder.join("certificate-key.pem"), key.serialize_pem())?;
        std::fs::write(folder.join("ca.pem"), &self.pem)?;
        Ok(())
    }
}

/// How long the keepers of a group wait for a hub that does not answer: shorter than an operator would set it, so that
/// the story goes on.
const HUB_LOST_MS: u64 = 2_000;

/// The homeservers, and the folder with everything they and the devices write.
pub(crate) struct World {
    pub(crate) a: Homeserver,
    pub(crate) b: Homeserver,
    /// The hub of the group; it runs only while the story of the group is told.
    pub(crate) c: Homeserver,
    root: PathBuf,
    /// Goes with the program, unless something failed.
    temporary: Option<tempfile::TempDir>,
}

impl World {
    /// Folders, certificates and ports; nothing runs yet.
    pub(crate) fn new(folder: Option<&Path>) -> anyhow::Result<Self> {
        let (root, temporary) = match folder {
            Some(folder) => {
                std::fs::create_dir(folder)
                    .with_context(|| format!("{} cannot be made", folder.display()))?;
                (std::path::absolute(folder)?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("tidings-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let authority = Authority::new()?;
        let a = Homeserver::prepare("a.localhost", &root, &authority)?;
        let b = Homeserver::prepare("b.localhost", &root, &authority)?;
        let c = Homeserver::prepare("c.localhost", &root, &authority)?;
        Ok(Self { a, b, c, root, temporary })
    }

    /// Makes all identities and starts the first two.
    pub(crate) async fn start(&mut self) -> anyhow::Result<[&Homeserver; 2]> {
        self.a.configure(&[&self.b, &self.c]).await?;
        self.b.configure(&[&self.a, &self.c]).await?;
        self.c.configure(&[&self.a, &self.b]).await?;
        self.a.start().await?;
        self.b.start().await?;
        Ok([&self.a, &self.b])
    }

    /// Asks those that run to end, and waits.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let (a, b, c) = tokio::join!(self.a.stop(), self.b.stop(), self.c.stop());
        a.and(b).and(c)
    }

    /// Leaves the folder where it is, for whoever looks into the logs.
    pub(crate) fn keep(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            self.root = temporary.keep();
        }
    }

    /// Where the homeservers and the devices write what they have to say.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        vec![self.a.log(), self.b.log(), self.c.log(), self.devices()]
    }

    fn devices(&self) -> PathBuf {
        self.root.join("devices.txt")
    }

    /// The file for what the devices have to say.
    pub(crate) fn devices_log(&self) -> anyhow::Result<std::fs::File> {
        Ok(std::fs::File::create(self.devices())?)
    }

    /// The commands by which two people join, and who they are then.
    pub(crate) fn invitation(&self) -> anyhow::Result<Vec<(String, String)>> {
        let join = |name: &str, home: &Homeserver, other: &str| {
            let store = self.root.join(format!("{name}.device"));
            let command = format!(
                "cargo run --release -p terminal-chat -- register {name}@{} --server {} --ca {} --store {}",
                home.domain,
                home.address,
                quoted(&home.authority())?,
                quoted(&store)?,
            );
            let who = format!("{name}@{}; then Ctrl-N and {other}", home.domain);
            anyhow::Ok((who, command))
        };
        Ok(vec![
            join("frank", &self.a, &format!("grace@{}", self.b.domain))?,
            join("grace", &self.b, &format!("frank@{}", self.a.domain))?,
        ])
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().context("the folder's path is no text")?;
    Ok(format!("'{}'", path.replace('\'', "'\\''")))
}

/// A homeserver: its domain, where it listens, and the process while it runs.
pub(crate) struct Homeserver {
    pub(crate) domain: &'static str,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    process: Option<Child>,
}

impl Homeserver {
    /// Folder, certificate and a free port; nothing runs yet.
    pub(crate) fn prepare(domain: &'static str, root: &Path, authority: &Authority) -> anyhow::Result<Self> {
        let folder = root.join(domain);
        std::fs::create_dir_all(&folder)?;
        authority.certify(domain, &folder)?;
        // Asked of the system and given back: the server binds it a moment later.
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Self { domain, address, folder, process: None })
    }

    /// Writes the settings, with the others as static peers, and makes the server's identity.
    pub(crate) async fn configure(&self, others: &[&Self]) -> anyhow::Result<()> {
        let mut settings = format!(
            "domain = \"{}\"\ndata = \"data\"\nlisten = \"{}\"\nregistration = \"open\"\n\n\
             [tls]\ncertificate = \"certificate.pem\"\nkey = \"certificate-key.pem\"\n\n\
             [limits]\ngroup_hub_lost_ms = {HUB_LOST_MS}\n",
            self.domain, self.address,
        );
        for other in others {
            settings.push_str(&format!(
                "\n[[federation.peer]]\ndomain = \"{}\"\naddress = \"{}\"\ntrust_anchor = \"ca.pem\"\n",
                other.domain, other.address,
            ));
        }
        std::fs::write(self.settings(), settings)?;
        let data = self.folder.join("data");
        let init = Command::new(std::env::current_exe()?)
            .args([AS_HOMESERVER, "init", self.domain, "--data"])
            .arg(&data)
            .arg("--config")
            .arg(self.settings())
            .stdin(Stdio::null())
            .output()
            .await?;
        if !init.status.success() {
            bail!("init of {} failed: {}", self.domain, String::from_utf8_lossy(&init.stderr).trim());
        }
        Ok(())
    }

    fn settings(&self) -> PathBuf {
        self.folder.join("tidings.toml")
    }

    /// Starts the process and waits until it listens.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([AS_HOMESERVER, "serve", "--config"]).arg(self.settings());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        // A group of its own: Ctrl-C in the terminal is for this program, which then asks the homeservers to end.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn()?;
        let output = process.stdout.take().context("the homeserver's output")?;
        let mut lines = BufReader::new(output).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("listens at") {
                    return Ok(());
                }
            }
            bail!("{} ended before it listened; its log is {}", self.domain, self.log().display())
        };
        tokio::time::timeout(START, ready)
            .await
            .with_context(|| format!("{} did not start", self.domain))??;
        self.process = Some(process);
        Ok(())
    }

    /// Ends the process as a power cut would: SIGKILL, no warning.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<u32> {
        let mut process = self.process.take().context("the homeserver runs")?;
        let pid = process.id().context("the homeserver runs")?;
        process.kill().await?;
        Ok(pid)
    }

    /// Asks the process to end as an operator would, and waits; one that does not end is killed.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let pid = process.id().with_context(|| format!("{} has ended by itself", self.domain))?;
        // The standard library sends no signal but SIGKILL.
        let asked = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        if asked.success() && tokio::time::timeout(STOP, process.wait()).await.is_ok() {
            return Ok(());
        }
        process.kill().await?;
        bail!("{} did not end by itself in {} s", self.domain, STOP.as_secs())
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Child::id)
    }

    /// Where it writes what it has to say.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log.txt")
    }

    /// The certificate authority, for clients.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// What a device of this homeserver needs, with its store in a file of this name.
    pub(crate) fn device(&self, name: &str) -> anyhow::Result<Options> {
        Ok(Options {
            store: self.folder.join(format!("{name}.device")),
            server: Some(self.address),
            trust: Trust::Pem(std::fs::read(self.authority())?),
        })
    }
}
