//! Two homes and everything that can happen between them, as a history that follows from a seed.
//!
//! After each step: every item takes effect at most once and in order, the window is bounded, what a writer was
//! told is what the receiver decided. After healing: everything is settled, nothing is lost.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, as it is to"
)]

mod model;

use std::collections::{BTreeSet, VecDeque};

use model::{Answer, Random, Store, seed, verdict_of};
use tidings_federation::host::{Told, Verdict};
use tidings_federation::link::{Link, LinkLimits, Order, PeerLimits};
use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::RawFrame;

const WINDOW: usize = 16;

struct Side {
    store: Store,
    backup: Store,
    link: Link,
    /// The connection this side is on.
    on: Option<usize>,
    /// Connections below this one were joined, or are too old.
    joined: usize,
    orders: VecDeque<Order>,
    answers: VecDeque<Answer>,
    last_item: u64,
    /// Items that a restored copy may have lost: nobody can know better.
    excused: BTreeSet<u64>,
    /// It was restored without knowing.
    blind: bool,
}

impl Side {
    fn new(seed: u64, limits: LinkLimits) -> Self {
        let store = Store::new(seed);
        let link = store.link(limits);
        Self {
            backup: store.clone(),
            store,
            link,
            on: None,
            joined: 0,
            orders: VecDeque::new(),
            answers: VecDeque::new(),
            last_item: 0,
            excused: BTreeSet::new(),
            blind: false,
        }
    }

    fn crash(&mut self, limits: LinkLimits) {
        self.link = self.store.link(limits);
        self.on = None;
        self.orders.clear();
        self.answers.clear();
    }
}

struct World {
    sides: [Side; 2],
    /// By connection: what is on its way to side 0 and to side 1.
    wires: Vec<[VecDeque<RawFrame>; 2]>,
    now_ms: u64,
    random: Random,
    limits: LinkLimits,
    next_item: u64,
    /// Whether connections break without a word, so that entries can be held for poison.
    rough: bool,
    restores: bool,
    steps: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (rough, restores) = (random.chance(50), random.chance(40));
        let limits = LinkLimits {
            window_entries: WINDOW,
            refusals: 4 + random.below(20) as usize,
            batch_entries: 1 + random.below(8) as usize,
            resends: if rough && !restores { 3 } else { u32::MAX },
            ..LinkLimits::default()
        };
        Self {
            sides: [Side::new(seed ^ 0x1111, limits), Side::new(seed ^ 0x2222, limits)],
            wires: Vec::new(),
            now_ms: 1_000_000,
            random,
            limits,
            next_item: 1,
            rough,
            restores,
            steps: 0,
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        let who = self.random.below(2) as usize;
        self.now_ms += self.random.below(20);
        match self.random.below(100) {
            0..=19 => self.append(who),
            20..=44 => self.deliver(who),
            45..=59 => self.execute(who),
            60..=74 => self.answer(who),
            75..=86 => self.send(who),
            87..=91 => self.connect(who),
            92 => self.cut(who),
            93 => self.wires.push(Default::default()),
            94 => {
                self.sides[who].crash(self.limits);
                self.wires.push(Default::default());
            }
            95 => self.now_ms += self.random.below(1500),
            96 => self.sides[who].store.not_now = [0, 0, 0, 20][self.random.below(4) as usize],
            97 => self.sides[who].backup = self.sides[who].store.clone(),
            98 if self.restores && self.random.chance(30) => self.restore(who),
            _ => {
                let key = self.random.below(5);
                self.next_item += 1;
                let value = self.next_item;
                self.sides[who].store.keyed.insert(key, value);
                self.sides[who].link.appended();
            }
        }
        self.collect(who);
        self.check();
    }

    fn append(&mut self, who: usize) {
        let item = self.next_item;
        self.next_item += 1;
        self.sides[who].last_item = item;
        self.sides[who].store.append(item);
        self.sides[who].link.appended();
    }

    fn deliver(&mut self, who: usize) {
        let Some(on) = self.sides[who].on else { return };
        if !self.sides[who].link.wants_input() {
            return;
        }
        let Some(raw) = self.wires[on][who].pop_front() else { return };
        let frame = Frame::from_raw(&raw).unwrap().unwrap();
        let result = self.sides[who].link.frame(frame.clone(), self.now_ms);
        if let Err(refusal) = result {
            self.broke(who, &refusal, &frame);
        }
    }

    /// Honest homes never break a rule, whatever happened to them.
    fn broke(&mut self, who: usize, refusal: &Refusal, frame: &Frame) {
        panic!("side {who} closed the link with {refusal} at {frame:?}");
    }

    fn execute(&mut self, who: usize) {
        let side = &mut self.sides[who];
        if let Some(order) = side.orders.pop_front() {
            let answer = side.store.execute(order);
            side.answers.push_back(answer);
        }
    }

    fn answer(&mut self, who: usize) {
        if let Some(answer) = self.sides[who].answers.pop_front() {
            answer(&mut self.sides[who].link, self.now_ms);
        }
    }

    fn send(&mut self, who: usize) {
        let Some(on) = self.sides[who].on else { return };
        if let Some(frame) = self.sides[who].link.poll_frame(self.now_ms) {
            self.wires[on][1 - who].push_back(frame);
        }
    }

    /// A side takes the newest connection, whether or not the other did.
    fn connect(&mut self, who: usize) {
        let Some(newest) = self.wires.len().checked_sub(1) else { return };
        if newest >= self.sides[who].joined {
            // Each side joins a connection once; a side that left comes back on a newer one.
            let orderly = self.sides[who].on.is_some();
            self.sides[who].link.lost(orderly);
            self.sides[who].on = Some(newest);
            self.sides[who].joined = newest + 1;
            self.sides[who].link.connected(PeerLimits { window_entries: WINDOW, ..PeerLimits::default() });
        }
    }

    fn cut(&mut self, who: usize) {
        if self.sides[who].on.take().is_some() {
            self.sides[who].link.lost(!self.rough);
            self.wires.push(Default::default());
        }
    }

    fn restore(&mut self, who: usize) {
        let random = self.sides[who].store.random.clone();
        // What either side knows to be done by now may be missing at the other after this.
        for side in &mut self.sides {
            let done: Vec<u64> = side.store.results.keys().copied().collect();
            side.excused.extend(done);
        }
        let peer_effects: Vec<u64> = self.sides[who].store.effects.clone();
        self.sides[1 - who].excused.extend(peer_effects);
        let side = &mut self.sides[who];
        side.store = side.backup.clone();
        side.store.random = random;
        if self.random.chance(50) {
            // The home knows that it was restored (DUR-013).
            side.store.restart(&Told { taken: None, refusals: Vec::new() });
        } else {
            side.blind = true;
        }
        side.crash(self.limits);
        self.wires.push(Default::default());
    }

    fn collect(&mut self, who: usize) {
        while let Some(order) = self.sides[who].link.poll_order(self.now_ms) {
            if let Order::Close(refusal) = &order {
                panic!("side {who} closed the link with {refusal}");
            }
            self.sides[who].orders.push_back(order);
        }
    }

    fn check(&self) {
        for who in 0..2 {
            let (writer, receiver) = (&self.sides[who], &self.sides[1 - who]);
            let effects = receiver.store.effects.iter();
            let own: Vec<u64> = effects.copied().filter(|item| !self.excused(*item)).collect();
            assert!(own.is_sorted_by(|a, b| a < b), "out of order or twice");
            assert_eq!(receiver.store.effects.len(), receiver.store.had.len(), "twice");
            for (item, result) in &writer.store.results {
                match (result, verdict_of(*item)) {
                    (Ok(()), Verdict::Accepted) => assert!(
                        receiver.store.had.contains(item) || self.excused(*item),
                        "item {item} is called accepted and had no effect"
                    ),
                    (Err(code), Verdict::Refused(refusal)) if *code == refusal.code => {}
                    (Err(Code::POISON), _) => {
                        assert!(!receiver.store.had.contains(item) || self.restores, "poison with effect");
                    }
                    // A result that was seen before the copy is told once only: a home that does not know that
                    // it was restored takes the entry for accepted.
                    (Ok(()), Verdict::Refused(_)) if writer.blind && self.excused(*item) => {}
                    (told, verdict) => panic!("item {item}: told {told:?}, decided {verdict:?}"),
                }
            }
            assert!(receiver.store.unseen.len() <= self.limits.refusals, "more refusals than are kept");
        }
    }

    fn excused(&self, item: u64) -> bool {
        self.sides.iter().any(|side| side.excused.contains(&item))
    }

    /// Everything works again: both sides join one connection and finish.
    fn heal(&mut self) {
        for side in &mut self.sides {
            side.store.not_now = 0;
        }
        self.wires.push(Default::default());
        for who in 0..2 {
            self.connect(who);
        }
        for _ in 0..200_000 {
            let mut idle = true;
            for who in 0..2 {
                self.collect(who);
                while !self.sides[who].orders.is_empty() {
                    self.execute(who);
                    idle = false;
                }
                while !self.sides[who].answers.is_empty() {
                    self.answer(who);
                    self.collect(who);
                }
                let on = self.sides[who].on.unwrap();
                let before = self.wires[on][1 - who].len();
                self.send(who);
                idle &= self.wires[on][1 - who].len() == before;
                let before = self.wires[on][who].len();
                self.deliver(who);
                idle &= self.wires[on][who].len() == before;
                self.collect(who);
                self.check();
            }
            if idle {
                let due = self.sides.iter().filter_map(|side| side.link.deadline()).min();
                match due {
                    Some(due) => self.now_ms = self.now_ms.max(due),
                    None => return,
                }
            }
        }
        panic!("the link does not come to rest");
    }

    fn check_settled(&self) {
        for who in 0..2 {
            let (writer, receiver) = (&self.sides[who], &self.sides[1 - who]);
            assert_eq!(writer.store.done, writer.store.last(), "side {who} has entries without a result");
            assert_eq!(writer.link.queued(), 0);
            assert!(writer.store.keyed.is_empty(), "facts wait for a number");
            assert_eq!(receiver.store.unseen.len(), 0, "refusals were not seen");
            let position = receiver.store.taken.map_or(0, |taken| taken.n);
            assert_eq!(position, writer.store.last(), "the receiver is at the end");
            for stored in &writer.store.log {
                if let Some(item) = stored.item {
                    assert!(writer.store.results.contains_key(&item), "item {item} has no result");
                }
            }
        }
    }
}

fn history(seed: u64, steps: u64) -> u64 {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.heal();
    world.check_settled();
    world.steps
}

#[test]
fn whatever_happens_every_entry_is_taken_once_and_its_result_is_known() {
    let first = seed();
    for seed in first..first + 150 {
        let ended = std::panic::catch_unwind(|| history(seed, 1500));
        assert!(ended.is_ok(), "TIDINGS_SEED={seed} fails");
    }
}
