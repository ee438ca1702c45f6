//! A store of maps, for tests: one home's outbox and inbox for one peer.
//!
//! Entries carry dense item numbers that are never used twice, so that order and repetition can be seen.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::arithmetic_side_effects,
    reason = "numbers of a test are small"
)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use tidings_federation::host::{
    Content, InboxState, Incoming, NotNow, OutboxEntry, OutboxState, Taken, Told, Verdict,
};
use tidings_federation::link::{Link, LinkLimits, Order, PeerLimits};
use tidings_proto::codec::Frame;
use tidings_proto::entries;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::{Position, next_hash};
use tidings_proto::pb;

/// A small generator (xorshift64*), so that a history follows from its seed alone.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn incarnation(&mut self) -> Incarnation {
        let mut bytes = [1; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        Incarnation(bytes)
    }
}

/// The seed of a test, printed; `TIDINGS_SEED` sets it.
pub fn seed() -> u64 {
    let seed = std::env::var("TIDINGS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("TIDINGS_SEED={seed}");
    seed
}

/// An entry for an item: a transfer whose body is the item's number.
pub fn entry_of(item: u64) -> Bytes {
    let body = item.to_be_bytes().to_vec().into();
    pb::Entry { r#type: entries::TRANSFER, body }.encode_to_vec().into()
}

/// The item in an entry.
pub fn item_of(entry: &pb::Entry) -> Option<u64> {
    entry.body.as_ref().try_into().ok().map(u64::from_be_bytes)
}

/// What every home says to an item: some are refused, always with the same code.
pub fn verdict_of(item: u64) -> Verdict {
    match item % 7 {
        3 => Verdict::Refused(Code::NOT_HERE.into()),
        5 => Verdict::Refused(Refusal::new(Code::LANE_UNKNOWN, "no such lane")),
        _ => Verdict::Accepted,
    }
}

#[derive(Debug, Clone)]
pub struct Stored {
    pub item: Option<u64>,
    pub entry: Bytes,
    pub hash: Hash,
    /// A Void stands in its place when it is shipped.
    pub voided: bool,
}

/// What is durable.
#[derive(Debug, Clone)]
pub struct Store {
    pub incarnation: Incarnation,
    pub log: Vec<Stored>,
    pub done: u64,
    /// Results of items as this home's users were told.
    pub results: BTreeMap<u64, Result<(), Code>>,
    /// Latest-wins facts that wait for a number.
    pub keyed: BTreeMap<u64, u64>,
    pub taken: Option<Position>,
    pub unseen: BTreeMap<u64, Refusal>,
    /// Items of the peer that took effect, in order.
    pub effects: Vec<u64>,
    pub had: BTreeSet<u64>,
    /// Facts of the peer: the newest value by key.
    pub facts: BTreeMap<u64, u64>,
    pub random: Random,
    /// How many are told to wait, in percent.
    pub not_now: u64,
}

impl Store {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            incarnation: random.incarnation(),
            log: Vec::new(),
            done: 0,
            results: BTreeMap::new(),
            keyed: BTreeMap::new(),
            taken: None,
            unseen: BTreeMap::new(),
            effects: Vec::new(),
            had: BTreeSet::new(),
            facts: BTreeMap::new(),
            random,
            not_now: 0,
        }
    }

    pub fn last(&self) -> u64 {
        self.log.len() as u64
    }

    pub fn hash_at(&self, n: u64) -> Option<Hash> {
        match n.checked_sub(1) {
            None => Some(Hash::ZERO),
            Some(place) => self.log.get(place as usize).map(|stored| stored.hash),
        }
    }

    pub fn append_bytes(&mut self, item: Option<u64>, entry: Bytes) {
        let before = self.hash_at(self.last()).unwrap();
        let hash = next_hash(&before, &entry);
        self.log.push(Stored { item, entry, hash, voided: false });
    }

    pub fn append(&mut self, item: u64) {
        self.append_bytes(Some(item), entry_of(item));
    }

    pub fn outbox(&self) -> OutboxState {
        OutboxState {
            incarnation: self.incarnation,
            last: self.last(),
            done: self.done,
            done_hash: self.hash_at(self.done).unwrap(),
            oldest_ms: (self.done < self.last()).then_some(0),
        }
    }

    pub fn inbox(&self) -> InboxState {
        InboxState { taken: self.taken, unseen: self.unseen.clone().into_iter().collect() }
    }

    pub fn link(&self, limits: LinkLimits) -> Link {
        Link::new(self.outbox(), self.inbox(), limits)
    }

    pub fn fill(&mut self, max: usize) -> u64 {
        for _ in 0..max {
            let Some((key, value)) = self.keyed.pop_first() else { break };
            let body = [key.to_be_bytes(), value.to_be_bytes()].concat().into();
            let entry = pb::Entry { r#type: entries::WATERMARK, body }.encode_to_vec();
            self.append_bytes(None, entry.into());
        }
        self.last()
    }

    pub fn read(&self, after: u64, max_entries: usize, max_bytes: usize) -> Vec<OutboxEntry> {
        let mut out: Vec<OutboxEntry> = Vec::new();
        let (mut n, mut bytes) = (after + 1, 0);
        while n <= self.last() && out.len() < max_entries && (out.is_empty() || bytes < max_bytes) {
            let stored = &self.log[(n - 1) as usize];
            let entry = if stored.voided { self.void(n) } else { self.plain(n) };
            bytes += entry.entry.len();
            n = entry.to + 1;
            out.push(entry);
        }
        out
    }

    fn plain(&self, n: u64) -> OutboxEntry {
        let stored = &self.log[(n - 1) as usize];
        OutboxEntry { n, to: n, entry: stored.entry.clone(), hash: stored.hash }
    }

    fn void(&self, n: u64) -> OutboxEntry {
        let mut to = n;
        while self.log.get(to as usize).is_some_and(|stored| stored.voided) {
            to += 1;
        }
        let hash = self.hash_at(to).unwrap();
        let reason = pb::VoidReason::Lapsed.into();
        let body = pb::Void { from: n, to, reason, hash: hash.to_bytes() }.encode_to_vec().into();
        let entry = pb::Entry { r#type: entries::VOID, body }.encode_to_vec().into();
        OutboxEntry { n, to, entry, hash }
    }

    pub fn settle(&mut self, upto: u64, refusals: &[(u64, Refusal)]) {
        let refused: BTreeMap<u64, Code> = refusals.iter().map(|(n, refusal)| (*n, refusal.code)).collect();
        for n in 1..=upto.min(self.last()) {
            let stored = &self.log[(n - 1) as usize];
            let Some(item) = stored.item else { continue };
            if let Some(code) = refused.get(&n) {
                self.results.entry(item).or_insert(Err(*code));
            } else if n > self.done {
                self.results.entry(item).or_insert(if stored.voided { Err(Code::PEER_GONE) } else { Ok(()) });
            }
        }
        self.done = self.done.max(upto);
    }

    pub fn replace(&mut self, n: u64, code: Code) -> OutboxEntry {
        let stored = &mut self.log[(n - 1) as usize];
        stored.voided = true;
        if let Some(item) = stored.item {
            self.results.entry(item).or_insert(Err(code));
        }
        self.void(n)
    }

    pub fn restart(&mut self, _told: &Told) -> OutboxState {
        self.incarnation = self.random.incarnation();
        let before = std::mem::take(&mut self.log);
        let done = std::mem::take(&mut self.done);
        for (place, stored) in before.into_iter().enumerate() {
            let open = match stored.item {
                Some(item) => !self.results.contains_key(&item),
                None => place as u64 >= done,
            };
            if open && !stored.voided {
                self.append_bytes(stored.item, stored.entry);
            }
        }
        self.outbox()
    }

    pub fn take(&mut self, batch: &[Incoming]) -> Taken {
        let mut taken = Taken::default();
        for incoming in batch {
            if self.random.chance(self.not_now) {
                let wait = std::time::Duration::from_millis(1 + self.random.below(500));
                taken.not_now = Some(NotNow { wait, reason: Code::UNAVAILABLE.into() });
                break;
            }
            let verdict = match &incoming.content {
                Content::Refused(refusal) => Verdict::Refused(refusal.clone()),
                Content::Nothing => Verdict::Accepted,
                Content::Entry(entry) if entry.r#type == entries::WATERMARK => {
                    let (key, value) = entry.body.split_at(8);
                    let read = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
                    let held = self.facts.entry(read(key)).or_default();
                    *held = (*held).max(read(value));
                    Verdict::Accepted
                }
                Content::Entry(entry) => match item_of(entry) {
                    None => Verdict::Refused(Code::MESSAGE_MALFORMED.into()),
                    Some(item) => {
                        let verdict = verdict_of(item);
                        if verdict == Verdict::Accepted && self.had.insert(item) {
                            self.effects.push(item);
                        }
                        verdict
                    }
                },
            };
            if let Verdict::Refused(refusal) = &verdict {
                self.unseen.insert(incoming.n, refusal.clone());
            }
            self.taken = Some(incoming.position);
            taken.verdicts.push(verdict);
        }
        taken
    }

    pub fn inbox_restart(&mut self, incarnation: Incarnation) {
        self.unseen.clear();
        self.taken = Some(Position::start(incarnation));
    }

    pub fn results_seen(&mut self, upto: u64) {
        self.unseen = self.unseen.split_off(&(upto + 1));
    }

    /// Carries an order out; the answer is given to the link by calling what is returned.
    pub fn execute(&mut self, order: Order) -> Answer {
        match order {
            Order::Fill { token, max } => {
                let last = self.fill(max);
                Box::new(move |link, _| link.filled(token, last))
            }
            Order::Read { token, after, max_entries, max_bytes } => {
                let entries = self.read(after, max_entries, max_bytes);
                Box::new(move |link, _| link.read(token, entries))
            }
            Order::Check { token, n } => {
                let hash = self.hash_at(n);
                Box::new(move |link, _| link.checked(token, hash))
            }
            Order::Settle { token, upto, refusals } => {
                self.settle(upto, &refusals);
                Box::new(move |link, _| link.persisted(token))
            }
            Order::Replace { token, n, reason } => {
                let entry = self.replace(n, reason.code);
                Box::new(move |link, _| link.replaced(token, entry))
            }
            Order::Restart { token, told, .. } => {
                let outbox = self.restart(&told);
                Box::new(move |link, _| link.restarted(token, outbox))
            }
            Order::Take { token, batch } => {
                let taken = self.take(&batch);
                Box::new(move |link, now_ms| link.taken(token, taken, now_ms))
            }
            Order::Reset { token, incarnation } => {
                self.inbox_restart(incarnation);
                Box::new(move |link, _| link.persisted(token))
            }
            Order::Seen { token, upto } => {
                self.results_seen(upto);
                Box::new(move |link, _| link.persisted(token))
            }
            Order::Close(_) => unreachable!("closing is the driver's"),
        }
    }
}

/// Gives an answer to the link.
pub type Answer = Box<dyn FnOnce(&mut Link, u64) + Send>;

/// A link with its store, driven at once: every order is carried out as soon as it is given.
pub struct Driven {
    pub store: Store,
    pub link: Link,
    pub now_ms: u64,
    /// What the link closed the connection with.
    pub closed: Option<Refusal>,
}

impl Driven {
    pub fn new(store: Store) -> Self {
        let link = store.link(LinkLimits::default());
        Self { store, link, now_ms: 1_000_000, closed: None }
    }

    /// The process ends and begins again from what is stored.
    pub fn restart(&mut self) {
        self.link = self.store.link(LinkLimits::default());
    }

    pub fn append(&mut self, items: std::ops::RangeInclusive<u64>) {
        for item in items {
            self.store.append(item);
        }
        self.link.appended();
    }

    /// Connects, and gives the frames that leave before the peer says anything.
    pub fn connect(&mut self) -> Vec<Frame> {
        self.link.lost(true);
        self.closed = None;
        self.link.connected(PeerLimits::default());
        self.frames()
    }

    /// A frame comes in; the frames that leave because of it.
    pub fn give(&mut self, frame: impl Into<Frame>) -> Result<Vec<Frame>, Refusal> {
        self.link.frame(frame.into(), self.now_ms)?;
        let frames = self.frames();
        self.closed.take().map_or(Ok(frames), Err)
    }

    pub fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            while let Some(order) = self.link.poll_order(self.now_ms) {
                if let Order::Close(refusal) = order {
                    self.closed = Some(refusal);
                } else {
                    let answer = self.store.execute(order);
                    answer(&mut self.link, self.now_ms);
                }
            }
            match self.link.poll_frame(self.now_ms) {
                Some(raw) => frames.push(Frame::from_raw(&raw).unwrap().unwrap()),
                None => return frames,
            }
        }
    }
}

/// Connects two links and lets them talk until both are silent; the frames that went each way.
pub fn talk(a: &mut Driven, b: &mut Driven) -> [Vec<Frame>; 2] {
    let mut to_b = a.connect();
    let mut to_a = b.connect();
    let mut all = [Vec::new(), Vec::new()];
    while !to_a.is_empty() || !to_b.is_empty() {
        for frame in std::mem::take(&mut to_b) {
            all[0].push(frame.clone());
            to_a.extend(b.give(frame).expect("b finds nothing wrong"));
        }
        for frame in std::mem::take(&mut to_a) {
            all[1].push(frame.clone());
            to_b.extend(a.give(frame).expect("a finds nothing wrong"));
        }
    }
    all
}
