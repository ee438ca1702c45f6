//! A first figure of what messages cost: real server processes, SQLite with synchronous=FULL, authenticated devices,
//! receipts on. `cargo bench -p tidings-server --bench messages [-- ROUNDS]` prints a table; each figure is the
//! median of the rounds with its least and greatest.
//!
//! Ciphertexts are random bytes of a text message's size: encryption is measured in the client.

#[path = "../tests/wire/client.rs"]
#[expect(dead_code, reason = "shared with the tests, which use the rest")]
mod client;
#[path = "../tests/wire/signal.rs"]
mod signal;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Person, accepted};
use prost::Message as _;
use tidings_proto::codec::{self, Frame};
use tidings_proto::handshake::{ALPN_CLIENT, Identity};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pairs that write to each other at once.
const PAIRS: u8 = 16;
/// Messages of each pair in a round.
const MESSAGES: u64 = 400;
/// Connections of the memory figure.
const IDLE: usize = 1000;
/// Bytes of a ciphertext: what a short text becomes.
const CIPHERTEXT: usize = 293;

/// A homeserver process.
struct Home {
    domain: Domain,
    address: SocketAddr,
    folder: PathBuf,
    roots: rustls::RootCertStore,
    process: Option<Child>,
}

impl Home {
    fn prepare(root: &Path, domain: &str) -> Self {
        let domain = Domain::parse(domain).expect("a domain");
        let folder = root.join(domain.as_str());
        tidings_server::identity::create(&folder, &domain, tidings_server::node::random::<32>)
            .expect("an identity");
        let made = rcgen::generate_simple_self_signed(vec![domain.to_string()]).expect("a certificate");
        std::fs::write(folder.join("certificate.pem"), made.cert.pem()).expect("writes");
        std::fs::write(folder.join("certificate-key.pem"), made.signing_key.serialize_pem()).expect("writes");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let address = std::net::UdpSocket::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
        Self { domain, address: address.expect("a free port"), folder, roots, process: None }
    }

    async fn start(&mut self, other: Option<(&Domain, SocketAddr, &Path)>) {
        let peer = other.map(|(domain, address, folder)| {
            let anchor = folder.join("certificate.pem");
            format!("[[federation.peer]]\ndomain = \"{domain}\"\naddress = \"{address}\"\ntrust_anchor = {anchor:?}\n")
        });
        let settings = format!(
            "domain = \"{}\"\ndata = \".\"\nlisten = \"{}\"\nregistration = \"open\"\n\
             [tls]\ncertificate = \"certificate.pem\"\nkey = \"certificate-key.pem\"\n\
             [federation]\ndiscovery = false\n{}\
             [limits]\nrequests_per_second = 100000\ncandidate_connections_per_source = 1000\n",
            self.domain,
            self.address,
            peer.unwrap_or_default(),
        );
        let file = self.folder.join("tidings.toml");
        std::fs::write(&file, settings).expect("writes");
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        while let Some(line) = lines.next_line().await.expect("reads") {
            if line.contains("listens at") {
                self.process = Some(process);
                return;
            }
        }
        panic!("the server ended");
    }

    async fn dial(&self, endpoint: &quinn::Endpoint) -> quinn::Connection {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN_CLIENT.as_bytes().to_vec()];
        let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("a suite");
        let config = quinn::ClientConfig::new(Arc::new(quic));
        let connecting = endpoint.connect_with(config, self.address, self.domain.as_str());
        connecting.expect("a dial").await.expect("a connection")
    }

    async fn register(&self, endpoint: &quinn::Endpoint, person: &Person) {
        let identity = Identity::Candidate(person.device.public());
        let mut candidate =
            Client::enter(self.dial(endpoint).await, &self.domain, identity, &person.device).await;
        let request = pb::Register {
            genesis: Some(person.genesis.clone()),
            token: String::new(),
            keys: Some(person.identity.prekeys()),
        };
        let answer = candidate.answer(codec::encode(&request), "local").await;
        assert!(matches!(answer, Frame::Done(_)), "{answer:?}");
    }

    async fn device(&self, endpoint: &quinn::Endpoint, person: &Person) -> Client {
        let identity = Identity::Device { account: person.account(), device: person.device_id() };
        Client::enter(self.dial(endpoint).await, &self.domain, identity, &person.device).await
    }

    fn proc(&self, file: &str) -> String {
        let pid = self.process.as_ref().and_then(Child::id).expect("it runs");
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("Linux")
    }

    /// Processor time so far.
    fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: u64 =
            fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in KB.
    fn resident(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

/// One round of one workload.
struct Round {
    per_second: f64,
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Each pair in a closed loop: a message is sent when the one before has arrived.
async fn round(homes: (&Home, &Home), endpoint: &quinn::Endpoint, seed: u8) -> Round {
    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        let (a, b) = (seed + pair * 2, seed + pair * 2 + 1);
        let people = (person(&homes.0.domain, a), person(&homes.1.domain, b));
        homes.0.register(endpoint, &people.0).await;
        homes.1.register(endpoint, &people.1).await;
        let mut from = homes.0.device(endpoint, &people.0).await;
        let mut to = homes.1.device(endpoint, &people.1).await;
        from.sync(None).await;
        to.sync(None).await;
        let resolve = pb::Resolve { address: people.1.address.to_string(), ..Default::default() };
        let _chain: pb::Resolved = from.ask(&resolve, false).await.expect("resolves");
        to.decide(&people.0, pb::Decision::Accept).await;
        pairs.push((people, from, to));
    }
    let before = cpu(homes);
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (people, mut from, mut to) in pairs {
        running.spawn(async move {
            let mut times = Vec::new();
            for counter in 1..=MESSAGES {
                let mut request = people.0.submit_to(&people.1, counter);
                request.payloads[0].ciphertext = vec![counter as u8; CIPHERTEXT].into();
                let sent = Instant::now();
                let arrives = async {
                    let (n, entry) = to.entry().await;
                    to.acknowledge(n).await;
                    let entry = pb::Entry::decode(entry).expect("an entry");
                    pb::Delivery::decode(entry.body).expect("a delivery").number
                };
                let (outcome, number) = tokio::join!(from.submit(&request), arrives);
                assert_eq!((accepted(&outcome).number, number), (counter, counter), "once and in order");
                times.push(sent.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = running.join_all().await.into_iter().flatten().collect();
    let (took, cpu) = (began.elapsed(), cpu(homes) - before);
    times.sort_unstable();
    let messages = times.len() as f64;
    let at = |share: f64| times[((messages - 1.0) * share) as usize].as_secs_f64() * 1000.0;
    Round {
        per_second: messages / took.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / messages,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
    }
}

fn person(domain: &Domain, seed: u8) -> Person {
    Person::new(domain, &format!("user{seed}"), seed)
}

fn cpu(homes: (&Home, &Home)) -> Duration {
    let own = homes.0.cpu();
    if homes.0.address == homes.1.address { own } else { own + homes.1.cpu() }
}

fn print(name: &str, rounds: &[Round]) {
    let column = |what: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(what).collect();
        values.sort_unstable_by(f64::total_cmp);
        format!("{:8.1} ({:.1} to {:.1})", values[values.len() / 2], values[0], values[values.len() - 1])
    };
    println!("{name}");
    println!("  messages a second          {}", column(|round| round.per_second));
    println!("  server CPU a message, µs   {}", column(|round| round.cpu_us));
    println!("  latency p50, ms            {}", column(|round| round.p50_ms));
    println!("  latency p99, ms            {}", column(|round| round.p99_ms));
}

async fn workload(name: &str, two: bool, rounds: usize) {
    let mut results = Vec::new();
    for _ in 0..rounds {
        let root = tempfile::tempdir().expect("a folder");
        let (mut a, mut b) = (Home::prepare(root.path(), "a.test"), Home::prepare(root.path(), "b.test"));
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        if two {
            a.start(Some((&b.domain, b.address, &b.folder))).await;
            b.start(Some((&a.domain, a.address, &a.folder))).await;
            results.push(round((&a, &b), &endpoint, 1).await);
        } else {
            a.start(None).await;
            results.push(round((&a, &a), &endpoint, 1).await);
        }
    }
    print(name, &results);
}

async fn idle() {
    let root = tempfile::tempdir().expect("a folder");
    let mut home = Home::prepare(root.path(), "a.test");
    home.start(None).await;
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let before = home.resident();
    let mut held = Vec::new();
    for seed in 0..IDLE {
        let key = SigningKey::from_seed(&tidings_proto::sign::sha256(&seed.to_be_bytes()).0);
        let user = Person::with_key(&home.domain, &format!("n{seed}"), 1, key);
        home.register(&endpoint, &user).await;
        let mut device = home.device(&endpoint, &user).await;
        device.sync(None).await;
        held.push(device);
    }
    let after = home.resident();
    println!("{IDLE} devices of {IDLE} accounts, connected and idle");
    println!(
        "  resident before and after  {before} KB, {after} KB: {:.1} KB each",
        (after - before) as f64 / IDLE as f64
    );
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(5);
    println!(
        "{PAIRS} pairs in a closed loop, {MESSAGES} messages each, {rounds} rounds: median (least to greatest)"
    );
    workload("one server", false, rounds).await;
    workload("two servers", true, rounds).await;
    idle().await;
}
