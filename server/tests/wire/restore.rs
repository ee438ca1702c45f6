//! A home that was restored from an old copy of its server chain (04-chains, 4.3).

use std::time::Duration;

use tidings_proto::chain::{ServerState, Verified};
use tidings_proto::frame::FrameLimits;
use tidings_proto::handshake::{ALPN_CLIENT, Credentials, Identity, Opener, OpenerConfig};
use tidings_proto::{pb, quic};
use tidings_server::config::Registration;
use tidings_server::{identity, node};

use crate::client::{Person, accepted, deliveries};
use crate::world::World;

const DEADLINE: Duration = Duration::from_secs(20);

impl World {
    /// As the copy of an evening before.
    async fn begin_with_chain(&mut self, copy: &str) {
        self.end().await;
        std::fs::write(self.chain_file(), copy).expect("writes");
        self.begin().await;
    }

    /// It has noticed, and serves nobody until it is started again.
    async fn begin_mended(&mut self) {
        tokio::time::timeout(DEADLINE, self.node().ended()).await.expect("it stops by itself");
        self.end().await;
        self.begin().await;
    }
}

#[tokio::test]
async fn a_home_restored_from_an_old_copy_is_mended_by_its_peer() {
    let (mut a, mut b) = World::pair();
    a.begin().await;
    b.begin().await;
    let (alice, bob) = (Person::new(&a.domain, "alice", 1), Person::new(&b.domain, "bob", 2));
    a.register(&alice, "").await.expect("registers");
    b.register(&bob, "").await.expect("registers");
    let copy = std::fs::read_to_string(a.chain_file()).expect("reads");
    a.end().await;
    a.renew_incarnation();
    a.begin().await;
    let resolve = pb::Resolve { address: bob.address.to_string(), ..Default::default() };
    let _met: pb::Resolved = a.device(&alice).await.ask(&resolve, false).await.expect("resolves");

    a.begin_with_chain(&copy).await;
    a.begin_mended().await;
    let chain = std::fs::read_to_string(a.chain_file()).expect("reads");
    assert!(
        chain.starts_with(copy.trim()) && chain.lines().count() == 3,
        "what was lost, and a new incarnation"
    );
    let mut to_bob = b.device(&bob).await;
    to_bob.decide(&alice, pb::Decision::Accept).await;
    to_bob.sync(None).await;
    let mut from_alice = a.device(&alice).await;
    from_alice.sync(None).await;
    let _met: pb::Resolved = from_alice.ask(&resolve, false).await.expect("resolves");
    accepted(&from_alice.submit(&alice.submit_to(&bob, 1)).await);
    assert_eq!(deliveries(&to_bob.entry().await.1).number, 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_home_restored_from_an_old_copy_is_mended_by_a_device() {
    let mut home = World::start(Registration::Open).await;
    let alice = Person::new(&home.domain, "alice", 1);
    home.register(&alice, "").await.expect("registers");
    let copy = std::fs::read_to_string(home.chain_file()).expect("reads");
    home.end().await;
    home.renew_incarnation();
    let (held, _) = identity::load(home.folder(), &home.domain).expect("an identity");
    home.begin().await;
    home.begin_with_chain(&copy).await;

    let connection = home.dial().await;
    let streams = connection.open_bi().await.expect("a stream");
    let (mut writer, mut reader) = quic::frames(streams, FrameLimits::default());
    let (mut machine, first) = Opener::start(OpenerConfig {
        alpn: ALPN_CLIENT.to_owned(),
        domain: home.domain.clone(),
        server: Some(Verified::<ServerState>::verify(&held.links).expect("a chain")),
        server_links: held.links,
        credentials: Credentials {
            identity: Identity::Device { account: alice.account(), device: alice.device_id() },
            key: alice.device.clone(),
            chain: Vec::new(),
        },
        exporter: quic::exporter(&connection),
        nonce_proof: false,
        nonce: node::random(),
        boot_id: node::random(),
        capabilities: vec![0, 2, 5],
        software: "raw/1".to_owned(),
    });
    writer.write_all(&first).await.expect("writes");
    let welcome = reader.next_frame().await.expect("reads").expect("a frame");
    let refusal = machine.handle(&welcome).expect_err("its chain lacks a link");
    assert_eq!(refusal.links.len(), 1);
    let failure = refusal.to_pb();
    let handed = quic::hand_over(&mut writer, &connection, &failure);
    tokio::time::timeout(DEADLINE, handed).await.expect("it closes");
    home.begin_mended().await;
    let chain = std::fs::read_to_string(home.chain_file()).expect("reads");
    assert_eq!(chain.lines().count(), 3);
    home.device(&alice).await.sync(None).await;
    home.stop().await;
}
