//! A home in the simulation: a disk that survives, and a replica in memory that does not.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidings_proto::chain::group::Chains;
use tidings_proto::chain::group::{ServerRef, ServerSigner};
use tidings_proto::chain::{ServerState, Verified, server};
use tidings_proto::id::{AccountId, Incarnation};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;
use tidings_server::groups::replica::effect::{Effect, Row, Write};
use tidings_server::groups::replica::{Context, Loader, Own, Replica, ReplicaLimits, slot_is_link};

/// What survives.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub parts: BTreeMap<Bytes, Bytes>,
    pub log: BTreeMap<u64, Row>,
}

impl Disk {
    pub fn rows(&self, after: u64, most: usize) -> Vec<Row> {
        let mut bytes = 0;
        let fits = |row: &&Row| {
            bytes += row.record.len();
            bytes < 131_072
        };
        self.log.range(after + 1..).map(|(_, row)| row).take(most).take_while(fits).cloned().collect()
    }

    pub fn link_rows(&self, after: u64, most: usize) -> Vec<Row> {
        let rows = self.log.range(after + 1..).map(|(_, row)| row);
        rows.filter(|row| slot_is_link(&row.slot)).take(most).cloned().collect()
    }
}

/// What a device is told beside the log.
#[derive(Debug, Clone)]
pub struct Told {
    pub account: AccountId,
    pub notice: pb::GroupNotice,
}

pub struct Home {
    pub domain: Domain,
    pub own: Own,
    pub disk: Disk,
    pub backup: Option<Disk>,
    pub replica: Option<Replica>,
    /// Counts starts: answers to an earlier one are nobody's.
    pub boot: u64,
    pub up: bool,
    /// For good.
    pub dead: bool,
    pub restored: u64,
    pub told: Vec<Told>,
    /// Checked against what was ever stable up to here.
    pub checked: u64,
    pub resync: Option<(u64, Domain)>,
    /// The last row was fetched to join: the next may be behind a hole.
    pub sparse: bool,
}

impl Home {
    pub fn new(index: usize, chains: &mut Chains) -> Self {
        let domain = Domain::parse(&format!("home{index}.example")).unwrap();
        let seed = |kind: u8| {
            let mut seed = [kind; 32];
            seed[..8].copy_from_slice(&(index as u64).to_be_bytes());
            SigningKey::from_seed(&seed)
        };
        let (root, online) = (seed(1), seed(2));
        let incarnation = Incarnation([1; 16]);
        let link = server::genesis(&domain, &root, &online, incarnation);
        let chain = Verified::<ServerState>::verify(std::slice::from_ref(&link)).unwrap();
        let server = ServerRef { domain: domain.clone(), genesis: chain.server_id() };
        chains.add_server(std::slice::from_ref(&link)).unwrap();
        let signer = ServerSigner { server: server.clone(), head: chain.head(), key: online.public() };
        let evidence = pb::Evidence { chain: server.genesis.to_bytes(), links: Vec::new(), server: true };
        let own = Own { signer, key: online, incarnation, chain: evidence };
        Self {
            domain,
            own,
            disk: Disk::default(),
            backup: None,
            replica: None,
            boot: 0,
            up: true,
            dead: false,
            restored: 0,
            told: Vec::new(),
            checked: 0,
            resync: None,
            sparse: false,
        }
    }

    pub fn server(&self) -> &ServerRef {
        &self.own.signer.server
    }

    /// One transaction.
    pub fn commit(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Write(write) = effect else { continue };
            match write {
                Write::Reset => self.disk = Disk::default(),
                Write::Put { key, value } => {
                    self.disk.parts.insert(key.clone(), value.clone());
                }
                Write::Delete { key } => {
                    self.disk.parts.remove(key);
                }
                Write::Append(row) => {
                    let last = self.disk.log.last_key_value().map(|(seq, _)| *seq);
                    let next = last.is_none_or(|last| last + 1 == row.seq);
                    // What a joiner fetched has no messages between its links.
                    let joined = effects.iter().any(
                        |effect| matches!(effect, Effect::Write(Write::Put { key, .. }) if key == "base"),
                    );
                    assert!(next || joined || self.sparse, "{}: a hole in the log", self.domain);
                    self.sparse = joined;
                    self.disk.log.insert(row.seq, row.clone());
                }
                Write::Slot { seq, slot } => {
                    if let Some(row) = self.disk.log.get_mut(seq) {
                        row.slot = slot.clone();
                    }
                }
                Write::Truncate { after } => {
                    self.disk.log.split_off(&(after + 1));
                }
                Write::Notice { account, notice, .. } => {
                    self.told.push(Told { account: *account, notice: notice.clone() });
                }
            }
        }
    }

    pub fn crash(&mut self) {
        self.replica = None;
        self.up = false;
        self.boot += 1;
        self.resync = None;
    }

    pub fn crash_unless_dead(&mut self) {
        if !self.dead && self.up {
            self.crash();
        }
    }

    /// Starts from what is on disk.
    pub fn start(&mut self, now_ms: u64, chains: &Chains, limits: &ReplicaLimits) {
        self.up = true;
        if self.disk.parts.is_empty() {
            return;
        }
        let loader = Loader::new(self.disk.parts.clone()).unwrap();
        let rows: Vec<Row> =
            self.disk.log.range(loader.tail_after() + 1..).map(|(_, row)| row.clone()).collect();
        let cx = Context { now_ms, own: &self.own, evidence: chains, limits };
        let replica = loader.finish(&cx, &rows).unwrap();
        // What it fetched to join it never read.
        self.checked = self.checked.max(replica.first().seq);
        self.replica = Some(replica);
    }

    /// An older copy of the disk takes its place; the home knows it.
    pub fn restore(&mut self) {
        self.crash();
        if let Some(backup) = &self.backup {
            self.disk = backup.clone();
        }
        self.restored += 1;
        let mut incarnation = [2; 16];
        incarnation[..8].copy_from_slice(&self.restored.to_be_bytes());
        self.own.incarnation = Incarnation(incarnation);
        self.checked = 0;
    }
}
