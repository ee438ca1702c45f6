//! A beginning that all histories share, and the end: everything works again and has to become live.

use std::fmt::Write as _;

use tidings_proto::chain::group::GroupChange;
use tidings_server::groups::replica::{Replica, Role};

use crate::world::World;

impl World {
    /// Lets time pass until nothing is left to do, or so long.
    pub fn run_for(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(due) = self.next_due()
            && due <= until
            && self.fault.is_none()
        {
            self.now_ms = self.now_ms.max(due);
            self.run_due();
        }
        self.now_ms = until;
    }

    /// All are members, and the first homes are keepers.
    pub fn settle_in(&mut self, keepers: usize) {
        let invite: Vec<_> = (1..self.people.len())
            .map(|person| {
                let one = &self.people[person];
                (one.account(), self.homes[one.home].domain.clone())
            })
            .collect();
        self.submit(0, &GroupChange::AddMembers(invite));
        for at in 1..self.homes.len() {
            self.join(at, 0);
        }
        for person in 1..self.people.len() {
            self.run_for(60);
            self.accept(person, 0);
            self.run_for(60);
        }
        let mut named = vec![self.server(0)];
        for at in 1..keepers.min(self.homes.len()) {
            named.push(self.server(at));
            self.submit(0, &GroupChange::SetKeepers(named.clone()));
            self.run_for(200);
        }
    }

    /// One person of each home is added and accepts; whoever has accepted is shipped to from then on.
    pub fn join_many(&mut self) {
        let named = |person: usize| {
            let one = &self.people[person];
            (one.account(), self.homes[one.home].domain.clone())
        };
        let invite: Vec<_> = (1..self.people.len()).map(named).collect();
        // An add-members link holds about 64 KiB.
        for some in invite.chunks(500) {
            self.submit(0, &GroupChange::AddMembers(some.to_vec()));
        }
        for person in 1..self.people.len() {
            self.accept(person, 0);
            self.run_for(25);
        }
    }

    /// Everything works again: all that are not gone for good come to one history and lose nothing.
    pub fn heal(&mut self) -> Result<(), String> {
        self.net.heal();
        self.net.loss = 0;
        self.crashes = 0;
        for at in 0..self.homes.len() {
            self.start(at);
        }
        let trace_from = std::env::var("TIDINGS_TRACE_HEAL").map_or(388, |_| 0);
        for round in 0..400 {
            self.trace = round >= trace_from;
            for at in 0..self.homes.len() {
                for peer in 0..self.homes.len() {
                    if at != peer {
                        self.notice(at, peer);
                    }
                }
            }
            for person in 0..self.people.len() {
                if !self.homes[self.people[person].home].dead {
                    self.device(person);
                }
            }
            self.join_invited();
            self.run_for(200);
            if let Some(fault) = self.fault.take() {
                return Err(format!("while healing: {fault}"));
            }
            if round > 2 && self.unfinished().is_none() {
                return Ok(());
            }
        }
        let what = self.unfinished().unwrap_or_default();
        Err(format!("does not become live after healing: {what}\n{}", self.picture()))
    }

    /// The first thing that is not as it is to be in the end.
    fn unfinished(&self) -> Option<String> {
        let live = || self.homes.iter().filter(|home| !home.dead);
        let newest = live().filter_map(|home| home.replica.as_ref());
        let newest = newest.max_by_key(|replica| (replica.position().term, replica.position().seq));
        let Some(newest) = newest else { return Some("nobody has the group".into()) };
        let (state, end) = (newest.state(), newest.position());
        for home in live() {
            let named = state.domains().contains(&home.domain) || state.keepers().contains(home.server());
            if !named {
                continue;
            }
            let Some(replica) = &home.replica else { return Some(format!("{} has no copy", home.domain)) };
            if replica.position() != end {
                return Some(format!("{} is at {:?}, not {end:?}", home.domain, replica.position()));
            }
            if replica.stable() != end.seq {
                return Some(format!("{}: stable {} of {}", home.domain, replica.stable(), end.seq));
            }
            if replica.state().hash() != state.hash() {
                return Some(format!("{} has another state", home.domain));
            }
            if replica.is_recovering() {
                return Some(format!("{} is still collecting", home.domain));
            }
            if replica.pending() > 0 {
                return Some(format!("{} has {} posts pending", home.domain, replica.pending()));
            }
        }
        for (index, person) in self.people.iter().enumerate() {
            let member = state.may_post(&person.account()) && !self.homes[person.home].dead;
            if member && !person.drafts.is_empty() {
                return Some(format!("person {index} waits with {:?}", person.drafts.front()));
            }
        }
        None
    }

    /// What everybody has, for whoever looks into a failure.
    pub fn picture(&self) -> String {
        let mut text = String::new();
        for home in &self.homes {
            let role = |replica: &Replica| {
                let cx = tidings_server::groups::replica::Context {
                    now_ms: self.now_ms,
                    own: &home.own,
                    evidence: &self.chains,
                    limits: &self.limits,
                };
                replica.role(&cx) as Role
            };
            let _ = match &home.replica {
                Some(replica) => writeln!(
                    text,
                    "{} dead={} {:?} end={:?} stable={} hub={} term={} pending={} recovering={} down={:?} keepers={:?} due={:?} now={}",
                    home.domain,
                    home.dead,
                    role(replica),
                    (replica.position().term, replica.position().seq),
                    replica.stable(),
                    replica.state().hub().domain,
                    replica.state().term(),
                    replica.pending(),
                    replica.is_recovering(),
                    replica.hub_down_since_ms(),
                    replica.state().keepers().iter().map(|keeper| keeper.domain.as_str()).collect::<Vec<_>>(),
                    replica.deadline(),
                    self.now_ms,
                ),
                None => writeln!(text, "{} dead={} up={} without", home.domain, home.dead, home.up),
            };
        }
        text
    }
}
