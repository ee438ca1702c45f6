//! Homes, people and a network; what can happen to them; what has to hold after each step.

use std::collections::BTreeMap;

use tidings_proto::chain::group::{Chains, GroupState, NewGroup, Policy, ServerRef, genesis};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::group_log::{GroupEntry, TermLink};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_server::groups::replica::effect::{Effect, Reply, Request};
use tidings_server::groups::replica::{Appended, Broken, Context, Joined, Replica, ReplicaLimits};

use crate::home::Home;
use crate::net::{Body, Event, Net, Random};
use crate::people::Person;
use crate::truth::Truth;

const TIMEOUT_MS: u64 = 400;

pub struct World {
    pub homes: Vec<Home>,
    pub people: Vec<Person>,
    pub chains: Chains,
    pub limits: ReplicaLimits,
    pub net: Net,
    pub random: Random,
    pub now_ms: u64,
    pub truth: Truth,
    pub by_domain: BTreeMap<Domain, usize>,
    /// Homes crash in the middle of what they do.
    pub crashes: u64,
    /// An owner's succession may go behind stable.
    pub owner_took_over: bool,
    pub fault: Option<String>,
    pub steps: u64,
    pub calls: u64,
    pub trace: bool,
    pub up_known: BTreeMap<(usize, usize), bool>,
}

pub fn small_limits(broken: Broken) -> ReplicaLimits {
    ReplicaLimits {
        hub_lost_ms: 1000,
        retry_ms: 50,
        retry_ms_max: 1000,
        marks_ms: 20,
        unstable_entries: 64,
        window_entries: 16,
        offer_posts: 8,
        pending_posts: 16,
        checkpoint_links: 12,
        head_entries: 4,
        head_bytes: 4096,
        batch_records: 16,
        batch_bytes: 16_384,
        lost_votes: 1024,
        broken,
    }
}

impl World {
    pub fn new(seed: u64, homes: usize, people: usize, broken: Broken) -> Self {
        let mut chains = Chains::new();
        let homes: Vec<Home> = (0..homes).map(|index| Home::new(index, &mut chains)).collect();
        let people = (0..people).map(|index| {
            let home = index % homes.len();
            Person::new(index, home, homes[home].domain.as_str(), &mut chains)
        });
        let people: Vec<Person> = people.collect();
        let by_domain = homes.iter().enumerate().map(|(index, home)| (home.domain.clone(), index)).collect();
        let mut world = Self {
            homes,
            people,
            chains,
            limits: small_limits(broken),
            net: Net::new(),
            random: Random::new(seed),
            now_ms: 1_000_000,
            truth: Truth::new(),
            by_domain,
            crashes: 0,
            owner_took_over: false,
            fault: None,
            steps: 0,
            calls: 0,
            trace: false,
            up_known: BTreeMap::new(),
        };
        world.create();
        world
    }

    fn create(&mut self) {
        let person = &self.people[0];
        let new = NewGroup {
            salt: [7; 16],
            address: person.address.clone(),
            hub: self.homes[0].server().clone(),
            policy: Policy { members_max: 1024, ..Policy::default() },
            profile: bytes::Bytes::new(),
        };
        let link = genesis(&person.author, &new, &person.key);
        let home = &mut self.homes[0];
        let cx =
            Context { now_ms: self.now_ms, own: &home.own, evidence: &self.chains, limits: &self.limits };
        let (replica, _) = Replica::create(&cx, &[link], &[]).unwrap();
        home.replica = Some(replica);
        self.call(0, |_, _| ());
    }

    pub fn blame(&mut self, what: String) {
        if self.fault.is_none() {
            self.fault = Some(format!("step {}: {what}", self.steps));
        }
    }

    /// One call of a home's replica: decided, committed, checked, sent. A crash may come in between.
    pub fn call<R>(&mut self, at: usize, with: impl FnOnce(&mut Replica, &Context<'_>) -> R) -> Option<R> {
        self.calls += 1;
        let home = &mut self.homes[at];
        let cx =
            Context { now_ms: self.now_ms, own: &home.own, evidence: &self.chains, limits: &self.limits };
        let replica = home.replica.as_mut()?;
        let result = with(replica, &cx);
        let mut effects = replica.take_effects();
        let crash = if self.random.below(10_000) < self.crashes { self.random.below(2) + 1 } else { 0 };
        if crash == 1 {
            home.crash();
            return None;
        }
        home.commit(&effects);
        self.check(at, &effects);
        if crash == 2 {
            self.homes[at].crash();
            return None;
        }
        self.perform(at, &mut effects);
        Some(result)
    }

    fn perform(&mut self, at: usize, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { ticket, to, request } => {
                    let boot = self.homes[at].boot;
                    let to = self.by_domain[&to];
                    let body = Body::Request { ticket, boot, request };
                    self.net.send(&mut self.random, self.now_ms, (at, to), body);
                    self.net.at(self.now_ms + TIMEOUT_MS, Event::Timeout { home: at, boot, ticket });
                }
                Effect::Read { ticket, after } => {
                    let rows = self.homes[at].disk.rows(after, 24);
                    self.call(at, |replica, cx| replica.rows(cx, ticket, &rows));
                }
                Effect::Resync { from } => self.homes[at].resync = Some((self.now_ms + 5, from)),
                Effect::Fork { .. } => {
                    self.blame(format!("an honest hub's two histories at {}", self.homes[at].domain));
                }
                Effect::Write(_) | Effect::Wake | Effect::Gone => {}
            }
        }
    }

    /// What has to hold at a home after each commit.
    fn check(&mut self, at: usize, effects: &[Effect]) {
        use tidings_server::groups::replica::effect::Write;
        let home = &mut self.homes[at];
        let Some(replica) = &home.replica else { return };
        let mut fault = None;
        for effect in effects {
            match effect {
                Effect::Write(Write::Truncate { after }) if *after < home.checked => {
                    if !self.owner_took_over {
                        fault = Some(format!("stable never goes back: {} to {after}", home.checked));
                    }
                    home.checked = home.checked.min(*after);
                }
                // What lies before the place at which it joined again it never reads.
                Effect::Write(Write::Reset) => home.checked = replica.first().seq,
                _ => {}
            }
        }
        if self.trace && stable_line(effects) {
            println!(
                "{} {at}: end {:?} stable {} hub {}",
                self.now_ms,
                replica.position().seq,
                replica.stable(),
                replica.state().hub().domain
            );
        }
        let stable = replica.stable();
        if stable < home.checked {
            fault = fault.or_else(|| Some(format!("stable never goes back: {} to {stable}", home.checked)));
        }
        let bound = self.limits.unstable_entries + 3 * self.limits.window_entries + 64;
        if replica.entries_in_memory() as u64 > bound {
            fault = Some(format!("memory is bounded: {} entries", replica.entries_in_memory()));
        }
        if replica.pending() > self.limits.pending_posts * self.people.len() {
            fault = Some(format!("queues are bounded: {} posts", replica.pending()));
        }
        let from = home.checked + 1;
        let domain = home.domain.to_string();
        for (_, row) in home.disk.log.range(from..).take_while(|(seq, _)| **seq <= stable) {
            if self.owner_took_over {
                break;
            }
            if let Err(what) = self.truth.read(&domain, row, &self.chains) {
                fault = fault.or(Some(what));
            }
        }
        home.checked = home.checked.max(stable);
        if let Some(fault) = fault {
            self.blame(format!("{domain}: {fault}"));
        }
    }

    pub fn deliver(&mut self, event: Event) {
        match event {
            Event::Timeout { home, boot, ticket } => {
                if self.homes[home].boot == boot {
                    self.call(home, |replica, cx| replica.answered(cx, ticket, Reply::Unreachable));
                }
            }
            Event::Message { from, to, body } => {
                if self.homes[to].up && !self.net.is_cut(from, to) {
                    self.receive(from, to, *body);
                }
            }
        }
    }

    fn receive(&mut self, from: usize, to: usize, body: Body) {
        if self.trace {
            println!("{} {from} -> {to}: {}", self.now_ms, crate::net::brief(&body));
        }
        match body {
            Body::Reply { ticket, boot, reply } => {
                if self.homes[to].boot == boot {
                    self.call(to, |replica, cx| replica.answered(cx, ticket, reply));
                }
            }
            Body::Link { append, hops } => self.append(to, &append, hops),
            Body::Request { ticket, boot, request } => {
                let domain = self.homes[from].domain.clone();
                let reply = if self.homes[to].replica.is_some() {
                    self.request(to, &domain, request)
                } else {
                    if matches!(request, Request::Batch(_)) {
                        self.homes[to].resync = Some((self.now_ms + 5, domain));
                    }
                    Some(Reply::Failed(Refusal::from(Code::NO_SUCH_GROUP)))
                };
                if let Some(reply) = reply {
                    let body = Body::Reply { ticket, boot, reply };
                    self.net.send(&mut self.random, self.now_ms, (to, from), body);
                }
            }
        }
    }

    fn request(&mut self, at: usize, from: &Domain, request: Request) -> Option<Reply> {
        fn answer<T>(result: Result<T, Refusal>, reply: impl Fn(T) -> Reply) -> Reply {
            result.map_or_else(Reply::Failed, reply)
        }
        match request {
            Request::Batch(batch) => {
                self.call(at, |replica, cx| Reply::Taken(replica.batch(cx, from, &batch)))
            }
            Request::Offer(offer) => {
                self.call(at, |replica, cx| answer(replica.offer(cx, from, &offer), Reply::Placed))
            }
            Request::Fetch(fetch) => {
                let after = self.homes[at].replica.as_ref()?.page_after(&fetch);
                let rows = self.homes[at].disk.rows(after, 24);
                self.call(at, |replica, cx| answer(replica.page(cx, &fetch, &rows, None), Reply::Page))
            }
            Request::Marks(marks) => self.call(at, |replica, cx| {
                replica.marks(cx, from, &marks);
                Reply::Done
            }),
            Request::Ask(_) => self.call(at, |replica, cx| Reply::State(replica.ask(cx))),
            Request::Propose(asked) => {
                self.call(at, |replica, cx| answer(replica.propose(cx, from, &asked), Reply::Voted))
            }
        }
    }

    pub fn append(&mut self, at: usize, append: &pb::GroupAppend, hops: u32) {
        let appended = self.call(at, |replica, cx| replica.append(cx, append));
        if let Some(Appended::Forward { to, request }) = appended
            && hops < 3
        {
            let to = self.by_domain[&to.domain];
            let body = Body::Link { append: *request, hops: hops + 1 };
            self.net.send(&mut self.random, self.now_ms, (at, to), body);
        }
    }

    /// What the shell does for a home that joins, or that fell too far behind.
    pub fn fetch_all(&mut self, at: usize, from: usize) -> Option<Joined> {
        if !self.homes[from].up || self.net.is_cut(at, from) {
            return None;
        }
        let domain = self.homes[at].domain.clone();
        let (mut state, mut began): (Option<GroupState>, _) = (None, None);
        let (mut after_seq, mut bytes) = (0, Vec::new());
        let (mut links, mut checkpoint) = (Vec::new(), None);
        loop {
            let state_offset = bytes.len() as u64;
            let fetch = pb::GroupFetch {
                after_seq,
                state_offset,
                from_state: true,
                links_only: true,
                ..Default::default()
            };
            let after = self.homes[from].replica.as_ref()?.page_after(&fetch);
            let rows = self.homes[from].disk.link_rows(after, 24);
            let page = self.call(from, |replica, cx| replica.page(cx, &fetch, &rows, Some(&domain)));
            let page = page?.ok()?;
            bytes.extend_from_slice(&page.state);
            if page.state_more {
                continue;
            }
            if after_seq == 0 && page.state_at.is_some() {
                state = Some(GroupState::from_trusted(&bytes).unwrap());
                checkpoint = page.state_at.clone().map(|at| (at, bytes.clone().into()));
            }
            for record in page.records {
                let entry = GroupEntry::parse(&record.entry).unwrap();
                let link = entry.link().unwrap();
                state = Some(match &state {
                    None => GroupState::genesis(link, &self.chains).ok()?,
                    Some(state) => state.apply(link, &self.chains).unwrap(),
                });
                if TermLink::of(link).is_some() {
                    began = Some(record.clone());
                }
                after_seq = entry.seq();
                links.push(record);
            }
            if !page.more {
                let (head, numbers, state) = (page.head?, page.numbers, state?);
                return Some(Joined { state, head, numbers, term_began: began, checkpoint, links });
            }
        }
    }

    /// A home without the group, or too far behind, tries to get it.
    pub fn join(&mut self, at: usize, from: usize) {
        let Some(joined) = self.fetch_all(at, from) else { return };
        let named = joined.state.members().any(|(_, member)| member.domain == self.homes[at].domain)
            || joined.state.keepers().contains(self.homes[at].server());
        if !named || !self.homes[at].up {
            return;
        }
        self.homes[at].resync = None;
        if self.homes[at].replica.is_some() {
            self.call(at, |replica, cx| replica.resync(cx, &joined).is_ok());
        } else {
            let home = &mut self.homes[at];
            let cx =
                Context { now_ms: self.now_ms, own: &home.own, evidence: &self.chains, limits: &self.limits };
            home.replica = Replica::join(&cx, &joined).ok();
            home.checked = home.replica.as_ref().map_or(0, |replica| replica.first().seq);
            self.call(at, |_, _| ());
        }
    }

    /// Everything that is due now.
    pub fn run_due(&mut self) {
        let mut most = 2000;
        while let Some(event) = self.net.pop(self.now_ms) {
            self.deliver(event);
            most -= 1;
            if most == 0 {
                return self.blame("messages go round without end".into());
            }
        }
        for at in 0..self.homes.len() {
            let due = self.homes[at].replica.as_ref().and_then(Replica::deadline);
            if due.is_some_and(|due| due <= self.now_ms) {
                self.call(at, |replica, cx| replica.timer(cx));
            }
            if let Some((due, from)) = self.homes[at].resync.clone()
                && due <= self.now_ms
            {
                self.homes[at].resync = None;
                self.join(at, self.by_domain[&from]);
            }
        }
    }

    /// When the next thing happens by itself.
    pub fn next_due(&self) -> Option<u64> {
        let timers = self.homes.iter().filter_map(|home| home.replica.as_ref()?.deadline());
        let joins = self.homes.iter().filter_map(|home| home.resync.as_ref().map(|(at, _)| *at));
        timers.chain(joins).chain(self.net.next_at()).min()
    }

    /// A home learns whether another one can be reached.
    pub fn notice(&mut self, at: usize, peer: usize) {
        let up = self.homes[peer].up && !self.net.is_cut(at, peer);
        let domain = self.homes[peer].domain.clone();
        let changed = self.up_known.insert((at, peer), up) != Some(up);
        if !up {
            self.call(at, |replica, cx| replica.unreachable(cx, &domain));
        } else if changed {
            self.call(at, |replica, cx| replica.reachable(cx, &domain));
        }
    }

    pub fn start(&mut self, at: usize) {
        let home = &mut self.homes[at];
        if home.dead || home.up {
            return;
        }
        home.start(self.now_ms, &self.chains, &self.limits);
        self.up_known.retain(|(who, peer), _| *who != at && *peer != at);
        self.call(at, |_, _| ());
    }

    pub fn server(&self, at: usize) -> ServerRef {
        self.homes[at].server().clone()
    }
}

fn stable_line(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Wake))
}
