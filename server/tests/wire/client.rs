//! A client that does nothing by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::account::{AccountChange, genesis, genesis_body};
use tidings_proto::chain::group::Author;
use tidings_proto::chain::{AccountState, DeviceKeys, Verified};
use tidings_proto::codec::{self, Frame, FrameMessage};
use tidings_proto::frame::FrameLimits;
use tidings_proto::handshake::{ALPN_CLIENT, Credentials, Identity, Opener, OpenerConfig, OpenerEvent};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::log::next_hash;
use tidings_proto::name::{Address, Domain};
use tidings_proto::pb;
use tidings_proto::quic::{self, FrameReader, FrameWriter};
use tidings_proto::sign::SigningKey;
use tidings_server::node;

use crate::signal::IdentityKey;

const DEADLINE: Duration = Duration::from_secs(10);

/// An account with one device.
pub(crate) struct Person {
    pub address: Address,
    pub device: SigningKey,
    pub identity: IdentityKey,
    pub genesis: pb::Link,
    recovery: SigningKey,
    chain: Verified<AccountState>,
}

/// Another device of an account.
pub(crate) struct Another {
    pub id: DeviceId,
    pub key: SigningKey,
    pub identity: IdentityKey,
}

impl Person {
    pub(crate) fn new(domain: &Domain, user: &str, seed: u8) -> Self {
        let device = SigningKey::from_seed(&[seed.wrapping_add(100); 32]);
        Self::with_key(domain, user, seed, device)
    }

    /// With a device key of the caller's.
    pub(crate) fn with_key(domain: &Domain, user: &str, seed: u8, device: SigningKey) -> Self {
        let address = Address::parse(&format!("{user}@{domain}")).expect("an address");
        let recovery = SigningKey::from_seed(&[seed; 32]);
        let identity = IdentityKey::new(seed);
        let keys = DeviceKeys::new(device.public(), &identity.public(), 1).expect("good keys");
        let body = genesis_body(&recovery.public(), &address, &keys, [seed; 16]);
        let link = genesis(body, &recovery, &device);
        let chain = Verified::<AccountState>::genesis(&link).expect("a good genesis");
        Self { address, device, identity, genesis: link, recovery, chain }
    }

    pub(crate) fn account(&self) -> AccountId {
        self.chain.account_id()
    }

    /// The first device, which has the account's id.
    pub(crate) fn device_id(&self) -> DeviceId {
        DeviceId(self.account().0)
    }

    /// Its first device, as the author of links.
    pub(crate) fn author(&self) -> Author {
        let number = u64::try_from(self.chain.len()).expect("small") - 1;
        Author { account: self.account(), device: self.device_id(), head: self.chain.head(), number }
    }

    pub(crate) fn head(&self) -> Bytes {
        self.chain.head().to_bytes()
    }

    /// A second device and the link that adds it.
    pub(crate) fn add_device(&mut self, seed: u8) -> (Another, pb::Link) {
        let key = SigningKey::from_seed(&[seed; 32]);
        let identity = IdentityKey::new(seed);
        let keys = DeviceKeys::new(key.public(), &identity.public(), 2).expect("good keys");
        let link = self.chain.link(&AccountChange::AddDevice(keys), &[&self.device, &key]);
        let id = DeviceId(self.chain.append(&link).expect("it follows").0);
        (Another { id, key, identity }, link)
    }

    /// The link that removes a device.
    pub(crate) fn remove_device(&mut self, device: DeviceId) -> pb::Link {
        let link = self.chain.link(&AccountChange::RemoveDevice(device), &[&self.recovery]);
        self.chain.append(&link).expect("it follows");
        link
    }

    pub(crate) fn submit_to(&self, other: &Self, counter: u64) -> pb::Submit {
        let own = self.chain.state().devices().keys().filter(|id| **id != self.device_id());
        pb::Submit {
            counter,
            class: pb::Class::Content.into(),
            to_account: other.account().to_bytes(),
            to_address: other.address.to_string(),
            to_head: other.chain.head().to_bytes(),
            own_head: self.chain.head().to_bytes(),
            payloads: other.chain.state().devices().keys().map(|id| payload(*id, counter)).collect(),
            own_payloads: own.map(|id| payload(*id, counter)).collect(),
            commitment: vec![7; 32].into(),
            ..Default::default()
        }
    }
}

pub(crate) fn payload(device: DeviceId, counter: u64) -> pb::Payload {
    pb::Payload {
        device: device.to_bytes(),
        kind: pb::PayloadKind::Message.into(),
        ciphertext: Bytes::from(format!("sealed {counter}")),
    }
}

/// A proven connection.
pub(crate) struct Client {
    connection: quinn::Connection,
    control: (FrameWriter, FrameReader),
    pipelines: BTreeMap<&'static str, (FrameWriter, FrameReader)>,
    events: Option<FrameReader>,
    position: pb::Position,
    pub state: Option<pb::DeviceState>,
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

impl Client {
    pub(crate) async fn enter(
        connection: quinn::Connection,
        domain: &Domain,
        identity: Identity,
        key: &SigningKey,
    ) -> Self {
        let mut control = quic::frames(connection.open_bi().await.expect("a stream"), FrameLimits::default());
        let (mut machine, first) = Opener::start(OpenerConfig {
            alpn: ALPN_CLIENT.to_owned(),
            domain: domain.clone(),
            server: None,
            server_links: Vec::new(),
            credentials: Credentials { identity, key: key.clone(), chain: Vec::new() },
            exporter: quic::exporter(&connection),
            nonce_proof: true,
            nonce: node::random(),
            boot_id: node::random(),
            capabilities: vec![0, 2, 5],
            software: "raw/1".to_owned(),
        });
        control.0.write_all(&first).await.expect("writes");
        let state = loop {
            let raw = within(control.1.next_frame()).await.expect("reads").expect("a frame");
            let mut ready = None;
            for event in machine.handle(&raw).expect("a good handshake") {
                match event {
                    OpenerEvent::Send(frame) => control.0.write(&frame).await.expect("writes"),
                    OpenerEvent::Proven(_) => {}
                    OpenerEvent::Ready(state) => ready = Some(state),
                }
            }
            if let Some(state) = ready {
                break state;
            }
        };
        Self {
            connection,
            control,
            pipelines: BTreeMap::new(),
            events: None,
            position: pb::Position::default(),
            state,
        }
    }

    async fn pipeline(&mut self, name: &'static str) -> &mut (FrameWriter, FrameReader) {
        if !self.pipelines.contains_key(name) {
            let streams = self.connection.open_bi().await.expect("a stream");
            self.pipelines.insert(name, quic::frames(streams, FrameLimits::default()));
        }
        self.pipelines.get_mut(name).expect("just put there")
    }

    pub(crate) async fn answer(&mut self, frame: Bytes, pipeline: &'static str) -> Frame {
        let (writer, reader) = self.pipeline(pipeline).await;
        writer.stream_mut().write_all(&frame).await.expect("writes");
        let raw = within(reader.next_frame()).await.expect("reads").expect("an answer");
        Frame::from_raw(&raw).expect("a frame").expect("a known one")
    }

    pub(crate) async fn ask<A: FrameMessage>(
        &mut self,
        request: &impl FrameMessage,
        local: bool,
    ) -> Result<A, pb::Failure> {
        match self.answer(codec::encode(request), if local { "local" } else { "remote" }).await {
            Frame::Failure(failure) => Err(failure),
            frame => Ok(codec::decode(&frame.to_raw()).expect("the answer")),
        }
    }

    pub(crate) async fn done(&mut self, request: &impl FrameMessage, local: bool) {
        let _done: pb::Done = self.ask(request, local).await.expect("done");
    }

    pub(crate) async fn submit(&mut self, request: &pb::Submit) -> Result<pb::Outcome, pb::Failure> {
        match self.answer(codec::encode(request), "submit").await {
            Frame::Outcome(outcome) => Ok(outcome),
            Frame::Failure(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn decide(&mut self, about: &Person, decision: pb::Decision) {
        self.done(&pb::Decide { account: about.account().to_bytes(), decision: decision.into() }, true).await;
    }

    pub(crate) async fn sync(&mut self, after: Option<pb::Position>) -> pb::Position {
        let syncing: pb::Syncing = self.ask(&pb::Sync { after }, true).await.expect("syncs");
        self.position = syncing.start.expect("a start");
        self.position.clone()
    }

    /// The next frame of the event stream.
    pub(crate) async fn event(&mut self) -> Frame {
        if self.events.is_none() {
            let stream = within(self.connection.accept_uni()).await.expect("an event stream");
            self.events = Some(FrameReader::new(stream, FrameLimits::default()));
        }
        let reader = self.events.as_mut().expect("just put there");
        let raw = within(reader.next_frame()).await.expect("reads").expect("a frame");
        Frame::from_raw(&raw).expect("a frame").expect("a known one")
    }

    /// Everything of a group up to here is durable.
    pub(crate) async fn send_group_ack(&mut self, ack: &pb::GroupAck) {
        self.control.0.send(ack).await.expect("writes");
    }

    /// The next entry of the mailbox.
    pub(crate) async fn entry(&mut self) -> (u64, Bytes) {
        if self.events.is_none() {
            let stream = within(self.connection.accept_uni()).await.expect("an event stream");
            self.events = Some(FrameReader::new(stream, FrameLimits::default()));
        }
        let reader = self.events.as_mut().expect("just put there");
        let entry: pb::MailboxEntry = within(reader.expect()).await.expect("an entry");
        let before = tidings_proto::id::Hash::try_from(&self.position.hash).expect("a hash");
        self.position.n = entry.n;
        self.position.hash = next_hash(&before, &entry.entry).to_bytes();
        (entry.n, entry.entry)
    }

    /// The next entry that is no Void, as its message, which has to be of this type.
    pub(crate) async fn next<M: prost::Message + Default>(&mut self, kind: u64) -> M {
        loop {
            let (_, entry) = self.entry().await;
            let entry = pb::Entry::decode(entry).expect("an entry");
            if entry.r#type == 0x0a {
                let void = pb::Void::decode(entry.body).expect("a void");
                (self.position.n, self.position.hash) = (void.to, void.hash);
                continue;
            }
            assert_eq!(entry.r#type, kind);
            return M::decode(entry.body).expect("the message");
        }
    }

    /// The next entry of this type, whatever stands before it.
    pub(crate) async fn find<M: prost::Message + Default>(&mut self, kind: u64) -> M {
        loop {
            let (_, entry) = self.entry().await;
            let entry = pb::Entry::decode(entry).expect("an entry");
            if entry.r#type == 0x0a {
                let void = pb::Void::decode(entry.body).expect("a void");
                (self.position.n, self.position.hash) = (void.to, void.hash);
            } else if entry.r#type == kind {
                return M::decode(entry.body).expect("the message");
            }
        }
    }

    /// Acknowledges everything read so far.
    pub(crate) async fn acknowledge_all(&mut self) {
        self.send_ack(self.position.clone()).await;
    }

    /// Acknowledges what was read, which has to be up to `n`.
    pub(crate) async fn acknowledge(&mut self, n: u64) {
        assert_eq!(self.position.n, n);
        self.send_ack(self.position.clone()).await;
    }

    pub(crate) async fn send_ack(&mut self, position: pb::Position) {
        self.control.0.send(&pb::Ack { position: Some(position) }).await.expect("writes");
    }

    pub(crate) async fn fence(&mut self) {
        let ping = pb::Ping { opaque: Bytes::from_static(b"fence") };
        assert!(matches!(self.answer(codec::encode(&ping), "local").await, Frame::Pong(_)));
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        let (writer, _) = self.pipeline("raw").await;
        writer.stream_mut().write_all(bytes).await.expect("writes");
        writer.finish();
    }

    pub(crate) async fn closed(&self) -> u32 {
        close_code(within(self.connection.closed()).await)
    }
}

/// The registry code that a connection was closed with.
pub(crate) fn close_code(error: quinn::ConnectionError) -> u32 {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let failure = pb::Failure::decode(close.reason).expect("the reason is a Failure");
            assert_eq!(u64::from(failure.code), close.error_code.into_inner());
            failure.code
        }
        other => panic!("{other}"),
    }
}

pub(crate) fn accepted(outcome: &Result<pb::Outcome, pb::Failure>) -> pb::Accepted {
    match outcome.clone().expect("an outcome").result {
        Some(pb::outcome::Result::Accepted(accepted)) => accepted,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn deliveries(entry: &Bytes) -> pb::Delivery {
    let entry = pb::Entry::decode(entry.clone()).expect("an entry");
    assert_eq!(entry.r#type, 0x00);
    pb::Delivery::decode(entry.body).expect("a delivery")
}

pub(crate) fn refused(outcome: &Result<pb::Outcome, pb::Failure>) -> pb::Failure {
    match outcome.clone().expect("an outcome").result {
        Some(pb::outcome::Result::Refused(failure)) => failure,
        other => panic!("{other:?}"),
    }
}
