//! The network: what is on its way, and when it arrives, if it does.

use std::collections::{BTreeMap, BTreeSet};

use tidings_proto::pb;
use tidings_server::groups::replica::effect::{Reply, Request};

/// A small generator (xorshift64*), so that a history follows from its seed alone.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone)]
pub enum Body {
    Request { ticket: u64, boot: u64, request: Request },
    Reply { ticket: u64, boot: u64, reply: Reply },
    Link { append: pb::GroupAppend, hops: u32 },
}

#[derive(Debug, Clone)]
pub enum Event {
    Message { from: usize, to: usize, body: Box<Body> },
    Timeout { home: usize, boot: u64, ticket: u64 },
}

#[derive(Debug, Default)]
pub struct Net {
    events: BTreeMap<(u64, u64), Event>,
    next: u64,
    cuts: BTreeSet<(usize, usize)>,
    pub loss: u64,
    pub delay_ms: u64,
}

impl Net {
    pub fn new() -> Self {
        Self { delay_ms: 20, ..Self::default() }
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.cuts.insert((a.min(b), a.max(b)));
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    pub fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    pub fn at(&mut self, at_ms: u64, event: Event) {
        self.next += 1;
        self.events.insert((at_ms, self.next), event);
    }

    /// Puts a message on its way: it may be lost, late, overtaken, or come twice.
    pub fn send(&mut self, random: &mut Random, now_ms: u64, (from, to): (usize, usize), body: Body) {
        let body = Box::new(body);
        if self.is_cut(from, to) || random.chance(self.loss) {
            return;
        }
        if self.loss > 0 && random.chance(3) {
            let late = now_ms + random.below(20 * self.delay_ms + 1);
            self.at(late, Event::Message { from, to, body: body.clone() });
        }
        let at_ms = now_ms + 1 + random.below(self.delay_ms + 1);
        self.at(at_ms, Event::Message { from, to, body });
    }

    pub fn next_at(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    pub fn pop(&mut self, now_ms: u64) -> Option<Event> {
        if self.next_at()? > now_ms {
            return None;
        }
        self.events.pop_first().map(|(_, event)| event)
    }
}

/// A message in one line, for whoever looks into a failure.
pub fn brief(body: &Body) -> String {
    let place = |at: &Option<pb::GroupPosition>| at.as_ref().map_or((0, 0), |at| (at.term, at.seq));
    match body {
        Body::Request { request: Request::Batch(batch), .. } => {
            format!("batch after {:?} with {}", place(&batch.after), batch.records.len())
        }
        Body::Request { request: Request::Offer(offer), .. } => {
            format!("offer in {} of {}", offer.term, offer.posts.len())
        }
        Body::Request { request: Request::Fetch(fetch), .. } => format!("fetch after {}", fetch.after_seq),
        Body::Reply { reply: Reply::Taken(taken), .. } => {
            let why = taken.refused.as_ref().map(|why| (why.code, why.detail.clone()));
            format!("taken {:?} gone {} {why:?} fence {}", place(&taken.taken), taken.gone, taken.fence.len())
        }
        Body::Reply { reply: Reply::Page(page), .. } => {
            format!("page of {} more {}", page.records.len(), page.more)
        }
        Body::Reply { reply: Reply::Placed(placed), .. } => {
            let of = |one: &pb::PlacedPost| match &one.result {
                Some(pb::placed_post::Result::Refused(why)) => format!("{}: {:#x}", one.number, why.code),
                Some(pb::placed_post::Result::Place(at)) => format!("{}: {}", one.number, at.seq),
                None => String::new(),
            };
            format!("placed {:?}", placed.results.iter().map(of).collect::<Vec<_>>())
        }
        Body::Reply { reply: Reply::State(state), .. } => {
            format!("holds {:?} voted {}", place(&state.held), state.voted)
        }
        Body::Reply { reply: Reply::Failed(why), .. } => format!("failed {why}"),
        Body::Link { hops, .. } => format!("link, hop {hops}"),
        Body::Request { request: Request::Propose(asked), .. } => {
            let vote: pb::KeeperVote = prost::Message::decode(asked.body.clone()).unwrap();
            format!("propose {} from {:?}", vote.term, place(&vote.from))
        }
        Body::Reply { reply: Reply::Voted(_), .. } => "votes".into(),
        other => format!("{other:?}").chars().take(70).collect(),
    }
}
