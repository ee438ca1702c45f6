//! The program in a folder of its own, as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tidings_proto::codec::{self, Frame};
use tidings_proto::handshake::{ALPN_CLIENT, Identity};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_server::{identity, node};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::client::{Client, Person};

const DEADLINE: Duration = Duration::from_secs(20);

/// The value, or the end of the test.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

/// A data folder with settings; the program may run on it.
pub(crate) struct Program {
    pub domain: Domain,
    pub folder: TempDir,
    pub address: Option<SocketAddr>,
    certificate: CertificateDer<'static>,
    endpoint: quinn::Endpoint,
    child: Option<(Child, BufReader<ChildStdout>)>,
}

impl Program {
    /// A folder with an identity, a certificate and settings: `limits` are lines of the table `[limits]`.
    pub(crate) fn prepare(limits: &str) -> Self {
        let domain = Domain::parse("home.test").expect("a domain");
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        identity::create(&data, &domain, node::random::<32>).expect("an identity");
        let made = rcgen::generate_simple_self_signed(vec![domain.to_string()]).expect("a certificate");
        std::fs::write(folder.path().join("certificate.pem"), made.cert.pem()).expect("writes");
        std::fs::write(folder.path().join("certificate-key.pem"), made.signing_key.serialize_pem())
            .expect("writes");
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        let program = Self {
            domain,
            folder,
            address: None,
            certificate: made.cert.der().clone(),
            endpoint,
            child: None,
        };
        program.configure("open", limits);
        program
    }

    /// Prepares and starts.
    pub(crate) async fn start(limits: &str) -> Self {
        let mut program = Self::prepare(limits);
        program.begin().await;
        program
    }

    /// Writes the settings.
    pub(crate) fn configure(&self, registration: &str, limits: &str) {
        let text = format!(
            "domain = \"home.test\"\ndata = \"data\"\nlisten = \"127.0.0.1:0\"\nregistration = \"{registration}\"\n\
             [tls]\ncertificate = \"certificate.pem\"\nkey = \"certificate-key.pem\"\n\
             [federation]\ndiscovery = false\n[limits]\n{limits}\n"
        );
        std::fs::write(self.config(), text).expect("writes");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("tidings.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) async fn begin(&mut self) {
        self.begin_by(&["exec \"$0\" --log-format json serve --config \"$1\""]).await;
    }

    /// Starts by a shell script that ends in the program, `$0`, with the settings, `$1`.
    pub(crate) async fn begin_by(&mut self, script: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log");
        let mut child = Command::new("sh")
            .args(["-c", &script.concat(), env!("CARGO_BIN_EXE_tidings")])
            .arg(self.config())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        within(lines.read_line(&mut line)).await.expect("reads");
        let address = line.split_whitespace().nth(3).and_then(|word| word.parse().ok());
        self.address = Some(address.unwrap_or_else(|| panic!("{line:?}: {}", self.log())));
        self.child = Some((child, lines));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().and_then(|(child, _)| child.id()).expect("it runs")
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = std::process::Command::new("kill").args([name, &self.pid().to_string()]).status();
        assert!(done.expect("kill").success());
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let (mut child, _) = self.child.take().expect("it runs");
        within(child.wait()).await.expect("a status")
    }

    pub(crate) async fn kill(&mut self) {
        self.signal("-KILL");
        self.ended().await;
    }

    /// Stops it in order, if it runs, and looks at the log of its whole life.
    pub(crate) async fn stop(mut self) {
        if self.child.is_some() {
            // The server would give clients that are still there time to go by themselves.
            self.endpoint.close(0_u32.into(), b"");
            self.signal("-TERM");
            assert!(self.ended().await.success(), "{}", self.log());
        }
        self.check_log();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).expect("a log")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// One JSON object a line, no panic, nothing about people or what they write.
    pub(crate) fn check_log(&self) {
        let log = self.log();
        for line in log.lines() {
            assert!(line.starts_with('{') && line.ends_with('}') && balanced(line), "no JSON object: {line}");
            assert!(line.contains("\"timestamp\":") && line.contains("\"message\":"), "{line}");
        }
        for forbidden in ["panic", "@home.test", "alice", "sealed", "7365616c6564", "0707070707"] {
            assert!(!log.contains(forbidden), "{forbidden} in {log}");
        }
    }

    pub(crate) async fn dial(&self) -> quinn::Connection {
        self.dial_with(None).await.expect("a connection")
    }

    pub(crate) async fn dial_with(
        &self,
        transport: Option<quinn::TransportConfig>,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN_CLIENT.as_bytes().to_vec()];
        let mut config =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a suite")));
        if let Some(transport) = transport {
            config.transport_config(Arc::new(transport));
        }
        let address = self.address.expect("it listens");
        within(self.endpoint.connect_with(config, address, self.domain.as_str()).expect("a dial")).await
    }

    pub(crate) async fn candidate(&self, person: &Person) -> Client {
        let identity = Identity::Candidate(person.device.public());
        Client::enter(self.dial().await, &self.domain, identity, &person.device).await
    }

    pub(crate) async fn device(&self, person: &Person) -> Client {
        Client::enter(self.dial().await, &self.domain, device(person), &person.device).await
    }

    pub(crate) async fn register(&self, person: &Person, token: &str) -> Result<(), pb::Failure> {
        let mut client = self.candidate(person).await;
        let (genesis, keys) = (Some(person.genesis.clone()), Some(person.identity.prekeys()));
        let request = pb::Register { genesis, token: token.to_owned(), keys };
        match client.answer(codec::encode(&request), "local").await {
            Frame::Done(_) => Ok(()),
            Frame::Failure(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    /// Registers and comes back as a device.
    pub(crate) async fn enter(&self, user: &str, seed: u8) -> (Person, Client) {
        let person = Person::new(&self.domain, user, seed);
        self.register(&person, "").await.expect("registers");
        let client = self.device(&person).await;
        (person, client)
    }
}

pub(crate) fn device(person: &Person) -> Identity {
    Identity::Device { account: person.account(), device: person.device_id() }
}

/// Whether strings end and brackets close; no more of a JSON parser is needed to see a broken line.
fn balanced(line: &str) -> bool {
    let (mut depth, mut text, mut escaped) = (0_i32, false, false);
    for letter in line.chars() {
        match (text, escaped, letter) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (_, _, '"') => text = !text,
            (false, _, '{' | '[') => depth += 1,
            (false, _, '}' | ']') => depth -= 1,
            _ => {}
        }
    }
    depth == 0 && !text
}

/// Runs the program to its end with arguments: whether it succeeded, and what it printed.
pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = within(command.output()).await.expect("a process");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("text"))
}
