//! One homeserver or two, each a process of its own in a folder of its own, and people with real devices at it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tidings_client::{Client, Contact, Event, Message, MessageId, Options, State, Status, Trust};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

/// What a test waits for comes within this time or never.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The program that is a homeserver if its first argument says so.
fn homeserver() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_two-homeservers"));
    command.arg("homeserver");
    command
}

/// A homeserver.
pub(crate) struct World {
    domain: &'static str,
    folder: TempDir,
    address: SocketAddr,
    process: Option<Child>,
}

impl World {
    /// Makes one that anybody may register at, and starts it.
    pub(crate) async fn start() -> Self {
        let mut world = Self::prepare("home.test");
        world.command(&["init", world.domain, "--data", "data"]).await;
        world.restart().await;
        world
    }

    /// Makes two that know where the other is, and starts both.
    pub(crate) async fn pair() -> [Self; 2] {
        let [mut a, mut b] = ["a.test", "b.test"].map(Self::prepare);
        for (one, other) in [(&a, &b), (&b, &a)] {
            let path = one.folder.path().join("tidings.toml");
            let mut settings = std::fs::read_to_string(&path).expect("written");
            let anchor = other.folder.path().join("certificate.pem");
            settings.push_str(&format!(
                "\n[[federation.peer]]\ndomain = \"{}\"\naddress = \"{}\"\ntrust_anchor = {anchor:?}\n",
                other.domain, other.address
            ));
            std::fs::write(path, settings).expect("writes");
        }
        for world in [&mut a, &mut b] {
            world.command(&["init", world.domain, "--data", "data"]).await;
            world.restart().await;
        }
        [a, b]
    }

    /// Folder, certificate, settings and a free port; nothing runs yet.
    fn prepare(domain: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec![domain.to_owned()]).expect("a certificate");
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("certificate.pem"), made.cert.pem()).expect("writes");
        std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).expect("writes");
        // Asked of the system and given back: the server binds it a moment later.
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let address = free.expect("a port");
        let settings = format!(
            "domain = \"{domain}\"\ndata = \"data\"\nlisten = \"{address}\"\nregistration = \"open\"\n\n\
             [tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n\n\
             [limits]\ncandidate_connections_per_source = 100\n"
        );
        std::fs::write(file("tidings.toml"), settings).expect("writes");
        Self { domain, folder, address, process: None }
    }

    /// Runs a command of the homeserver's that ends by itself.
    pub(crate) async fn command(&self, arguments: &[&str]) {
        let output =
            homeserver().args(arguments).current_dir(self.folder.path()).output().await.expect("runs");
        assert!(output.status.success(), "{arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the process and waits until it listens.
    pub(crate) async fn restart(&mut self) {
        let path = self.folder.path().join("log.txt");
        let log = std::fs::File::options().create(true).append(true).open(&path).expect("a log");
        let mut process = homeserver()
            .args(["serve", "--config"])
            .arg(self.folder.path().join("tidings.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                if line.contains("listens at") {
                    return;
                }
            }
            panic!("it ended before it listened: {}", std::fs::read_to_string(&path).expect("its log"));
        };
        tokio::time::timeout(DEADLINE, ready).await.expect("it listens in time");
        self.process = Some(process);
    }

    /// Ends the process as a power cut would: no warning, nothing written any more.
    pub(crate) async fn kill(&mut self) {
        self.process.take().expect("it runs").kill().await.expect("ends");
    }

    /// In the place of the stopped server, something that never answers.
    pub(crate) fn deaf_socket(&self) -> tokio::net::UdpSocket {
        let socket = UdpSocket::bind(self.address).expect("its port is free");
        socket.set_nonblocking(true).expect("sets");
        tokio::net::UdpSocket::from_std(socket).expect("a socket")
    }

    /// Copies what the stopped server has stored, as a backup would.
    pub(crate) fn keep_copy(&self) {
        copy_folder(&self.folder.path().join("data"), &self.folder.path().join("backup"));
    }

    /// Puts the copy in the place of what the stopped server has stored.
    pub(crate) fn restore_copy(&self) {
        let data = self.folder.path().join("data");
        std::fs::remove_dir_all(&data).expect("removes");
        copy_folder(&self.folder.path().join("backup"), &data);
    }

    /// What a device needs, with its store in a file of this name.
    pub(crate) fn options(&self, name: &str) -> Options {
        let certificate = std::fs::read(self.folder.path().join("certificate.pem")).expect("written");
        Options { store: self.store(name), server: Some(self.address), trust: Trust::Pem(certificate) }
    }

    /// The same for a device that gets no further than its first connection, which passes through what is to be
    /// kept alive.
    pub(crate) async fn options_for_one_connection(&self, name: &str) -> (Options, JoinSet<()>) {
        let bind = || tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (front, back) = (bind().await.expect("a socket"), bind().await.expect("a socket"));
        back.connect(self.address).await.expect("connects");
        let address = front.local_addr().expect("bound");
        let mut relay = JoinSet::new();
        relay.spawn(async move {
            let (mut there, mut here) = ([0; 2048], [0; 2048]);
            let mut first = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = front.recv_from(&mut there) => {
                        if *first.get_or_insert(from) == from {
                            back.send(&there[..length]).await.expect("sends");
                        }
                    }
                    Ok(length) = back.recv(&mut here) => {
                        if let Some(first) = first {
                            front.send_to(&here[..length], first).await.expect("sends");
                        }
                    }
                }
            }
        });
        (Options { server: Some(address), ..self.options(name) }, relay)
    }

    /// The file of a device.
    pub(crate) fn store(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.device"))
    }

    /// A new account with its first device.
    pub(crate) async fn person(&self, name: &str) -> Device {
        let address = format!("{name}@{}", self.domain).parse().expect("an address");
        Device::new(Client::register(self.options(name), address, None).await.expect("registers"))
    }

    /// A device whose store is there.
    pub(crate) async fn open(&self, name: &str) -> Device {
        Device::new(Client::open(self.options(name)).await.expect("opens"))
    }
}

/// A device and what it was told since it was made.
pub(crate) struct Device {
    pub(crate) client: Client,
    events: broadcast::Receiver<Event>,
}

impl Device {
    pub(crate) fn new(client: Client) -> Self {
        let events = client.events();
        Self { client, events }
    }

    /// The next event for which `pick` gives something.
    pub(crate) async fn event<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the device runs and the test keeps up");
                seen.push(format!("{event:?}"));
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, wait).await;
        found.unwrap_or_else(|_| panic!("{what} did not come; what came: {seen:#?}"))
    }

    /// The next message that comes.
    pub(crate) async fn message(&mut self) -> Message {
        self.event("a message", |event| match event {
            Event::Message(message) => Some(*message),
            _ => None,
        })
        .await
    }

    /// Waits until the device is connected, or halted, or waits.
    pub(crate) async fn status(&self, wanted: Status) {
        let mut status = self.client.status();
        let wait = status.wait_for(|status| *status == wanted);
        tokio::time::timeout(DEADLINE, wait).await.expect("the status comes").expect("the device runs");
    }

    /// Waits until a message got at least as far as this, and gives all states it was seen in.
    pub(crate) async fn reaches(&mut self, id: MessageId, state: State) -> Vec<State> {
        let mut states = Vec::new();
        let wait = async {
            loop {
                let message = self.client.store().message(id).await.expect("reads").expect("it is there");
                if states.last() != Some(&message.state) {
                    states.push(message.state);
                }
                if message.state >= state {
                    return;
                }
                drop(self.events.recv().await);
            }
        };
        let reached = tokio::time::timeout(DEADLINE, wait).await;
        assert!(reached.is_ok(), "{id} never reached {state:?}; it was {states:?}");
        states
    }

    /// Makes the other one known.
    pub(crate) async fn meet(&self, other: &Self) -> Contact {
        self.status(Status::Connected).await;
        self.client.resolve(other.client.address()).await.expect("resolves")
    }

    /// Writes to somebody.
    pub(crate) async fn say(&self, to: &Self, text: &str) -> MessageId {
        self.client.send_text(to.client.account(), text, None).await.expect("is stored")
    }

    /// Everything said with somebody, oldest first.
    pub(crate) async fn texts(&self, with: &Self) -> Vec<String> {
        let messages = self.client.store().messages(with.client.account(), u64::MAX, 1000).await;
        messages.expect("reads").into_iter().map(|message| message.text).collect()
    }
}

/// Copies a device's store as it lies on the disk.
pub(crate) fn copy_store(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        if with(from).exists() {
            std::fs::copy(with(from), with(to)).expect("copies");
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}
