//! What people and operators do, at random.

use tidings_proto::chain::assemble;
use tidings_proto::chain::group::{GroupChange, GroupState, Rank};
use tidings_proto::error::Code;
use tidings_proto::pb;
use tidings_proto::sign::Purpose;

use crate::people::read;
use crate::world::World;

/// What a history may hold beside posts and links.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mix {
    pub restores: bool,
    pub kills: bool,
    pub keepers: bool,
    pub transfers: bool,
    pub cuts: bool,
}

impl World {
    pub fn step(&mut self, mix: Mix) {
        self.steps += 1;
        self.now_ms += self.random.below(12);
        self.run_due();
        let at = self.random.index(self.homes.len());
        let person = self.random.index(self.people.len());
        match self.random.below(1000) {
            0..=549 => self.write(person),
            550..=749 => self.device(person),
            750..=849 => self.notice(at, self.random.clone().index(self.homes.len())),
            850..=879 => self.change_members(person),
            880..=887 if mix.keepers => self.change_keepers(person),
            888..=895 if mix.transfers => self.transfer(person),
            896..=903 if mix.cuts => self.change_cuts(),
            904..=909 => self.homes[at].crash_unless_dead(),
            910..=949 => self.start(at),
            950..=952 => self.homes[at].backup = Some(self.homes[at].disk.clone()),
            953..=955 if mix.restores => self.restore(at),
            956 if mix.kills => self.kill_hub(),
            957..=975 => self.mark(person),
            976..=985 => self.now_ms += self.random.below(600),
            _ => {}
        }
        if self.random.chance(3) {
            self.join_invited();
        }
    }

    pub fn view(&self, person: usize) -> Option<GroupState> {
        let home = &self.homes[self.people[person].home];
        home.replica.as_ref().filter(|_| home.up).map(|replica| replica.state().clone())
    }

    pub fn write(&mut self, person: usize) {
        let member = self.view(person).is_some_and(|state| state.may_post(&self.people[person].account()));
        if member && self.people[person].drafts.len() < 8 {
            self.sync(person);
            self.people[person].write();
        }
        self.device(person);
    }

    /// What the device learns from its home: what is stable, what was refused, what the home lost.
    pub fn sync(&mut self, person: usize) {
        let account = self.people[person].account();
        let at = self.people[person].home;
        let Some(state) = self.view(person) else { return };
        let stable = self.truth.newest(&account);
        let home = &mut self.homes[at];
        let one = &mut self.people[person];
        let caught_up = home.checked >= self.truth.last();
        if one.home_restored != home.restored {
            one.home_restored = home.restored;
            one.excused = true;
            one.again_from(0);
        }
        home.told.retain(|told| {
            if told.account == account {
                one.again_from(told.notice.number);
            }
            told.account != account
        });
        if caught_up {
            while let Some(first) = one.drafts.pop_front_if(|draft| draft.id <= stable) {
                one.last_number = first.number;
            }
        }
        let Some(member) = state.full_member(&account) else { return };
        if one.since != Some(member.since) {
            // Another membership: what stands in the log under it has its numbers; the rest follows.
            one.since = Some(member.since);
            one.excused = true;
            let key = (account, one.author.device);
            let Some(replica) = &home.replica else { return };
            let last = replica.last_number(&key);
            let mut in_log: Vec<(u64, u64)> = Vec::new();
            for (_, row) in home.disk.log.range(replica.stable() + 1..) {
                let record: pb::GroupRecord = prost::Message::decode(row.record.clone()).unwrap();
                let entry = tidings_proto::group_log::GroupEntry::parse(&record.entry).unwrap();
                if let Some(post) = entry.post()
                    && read(post).0 == account
                {
                    in_log.push((read(post).1, post.number));
                }
            }
            let mut next = last;
            one.last_number = last;
            for draft in &mut one.drafts {
                draft.accepted = false;
                if let Some((_, number)) = in_log.iter().find(|(id, _)| *id == draft.id) {
                    draft.number = *number;
                } else {
                    next += 1;
                    draft.number = next;
                }
            }
        }
    }

    /// A device submits what it has, in order.
    pub fn device(&mut self, person: usize) {
        self.sync(person);
        let at = self.people[person].home;
        for _ in 0..4 {
            let Some(state) = self.view(person) else { return };
            let one = &self.people[person];
            if state.full_member(&one.account()).is_none() {
                return;
            }
            let Some(draft) = one.drafts.iter().find(|draft| !draft.accepted).cloned() else { return };
            let post = one.post(&draft, &state, self.now_ms);
            let Some(result) = self.call(at, |replica, cx| replica.post(cx, post)) else { return };
            let lost = self.random.chance(3);
            let one = &mut self.people[person];
            match result {
                Ok(()) if lost => return,
                Ok(()) => {
                    if let Some(mine) = one.drafts.iter_mut().find(|mine| mine.id == draft.id) {
                        mine.accepted = true;
                    }
                }
                Err(refusal) if refusal.code == Code::NUMBER_GAP => {
                    one.number_gaps += 1;
                    if !one.excused {
                        let what = format!("accepted and lost: {} of person {person}", draft.number);
                        self.blame(what);
                    } else {
                        one.again_from(0);
                        self.count_anew(person);
                    }
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// With all that is known in hand and nothing on its way, numbers go on from what the log has.
    fn count_anew(&mut self, person: usize) {
        let one = &mut self.people[person];
        let home = &self.homes[one.home];
        let Some(replica) = &home.replica else { return };
        if replica.pending() == 0
            && home.checked == self.truth.last()
            && replica.stable() == replica.position().seq
        {
            let last = replica.last_number(&(one.account(), one.author.device));
            for (number, draft) in (last + 1..).zip(&mut one.drafts) {
                draft.number = number;
            }
        }
    }

    fn mark(&mut self, person: usize) {
        let at = self.people[person].home;
        let account = self.people[person].account();
        self.call(at, |replica, cx| {
            let end = replica.position().seq;
            replica.mark(cx, &account, end, end);
        });
    }

    pub fn submit(&mut self, person: usize, change: &GroupChange) {
        let Some(state) = self.view(person) else { return };
        let one = &self.people[person];
        let link = match change {
            GroupChange::HubTransfer(hub) | GroupChange::HubSuccession { hub, .. } => {
                let signers = [one.key.public().id(), hub.key.id()];
                let body = state.body(Some(&one.author), change, &signers);
                let signature = one.key.sign(Purpose::GROUP_LINK, &body);
                assemble(body, &[signature])
            }
            _ => state.link(Some(&one.author), change, &[&one.key]),
        };
        let append = pb::GroupAppend { link: Some(link), ..Default::default() };
        self.append(one.home, &append, 0);
    }

    /// A home that is shipped nothing looks first at how the group stands now.
    pub fn accept(&mut self, person: usize, from: usize) {
        let at = self.people[person].home;
        let own = self.server(at);
        let state = self.view(person);
        let shipped = state.is_some_and(|state| {
            state.domains().contains(&own.domain) || state.keepers().contains(&own) || *state.hub() == own
        });
        if !shipped && from != at {
            self.join(at, from);
        }
        self.submit(person, &GroupChange::Accept(own.domain));
    }

    fn change_members(&mut self, person: usize) {
        let Some(state) = self.view(person) else { return };
        let one = &self.people[person];
        let account = one.account();
        let Some(member) = state.member(&account) else { return };
        if member.invited {
            let from = self.random.index(self.homes.len());
            return self.accept(person, from);
        }
        let other = self.random.index(self.people.len());
        let target = self.people[other].account();
        let domain = self.homes[self.people[other].home].domain.clone();
        let change = match (state.member(&target), self.random.below(10)) {
            (None, _) => GroupChange::AddMembers(vec![(target, domain)]),
            (Some(_), 0..=2) if other != person && other != 0 => GroupChange::RemoveMembers(vec![target]),
            (Some(_), 3..=5) if other != 0 => {
                let rank = if self.random.chance(50) { Rank::Admin } else { Rank::Owner };
                GroupChange::SetRole(target, rank)
            }
            (Some(_), 6) if person != 0 => GroupChange::Leave,
            _ => return,
        };
        self.submit(person, &change);
    }

    fn change_keepers(&mut self, person: usize) {
        let Some(state) = self.view(person) else { return };
        let mut keepers = state.keepers().to_vec();
        let other = self.random.index(self.homes.len());
        let server = self.server(other);
        if let Some(index) = keepers.iter().position(|keeper| *keeper == server) {
            if keepers.len() <= 3 || server == *state.hub() {
                return;
            }
            keepers.remove(index);
        } else if keepers.len() < 5 && state.domains().contains(&server.domain) && !self.homes[other].dead {
            keepers.push(server);
        } else {
            return;
        }
        self.submit(person, &GroupChange::SetKeepers(keepers));
    }

    fn transfer(&mut self, person: usize) {
        let Some(state) = self.view(person) else { return };
        let other = self.random.index(self.homes.len());
        let signer = self.homes[other].own.signer.clone();
        if signer.server != *state.hub() && state.domains().contains(&signer.server.domain) {
            self.submit(person, &GroupChange::HubTransfer(signer));
        }
    }

    fn change_cuts(&mut self) {
        if self.random.chance(40) {
            return self.net.heal();
        }
        let split = self.random.next();
        let side = |home: usize| split >> (home % 40) & 1;
        for a in 0..self.homes.len() {
            for b in 0..a {
                if side(a) != side(b) {
                    self.net.cut(a, b);
                }
            }
        }
    }

    /// One at a time, and only while all others are whole: beyond that nothing is promised.
    fn restore(&mut self, at: usize) {
        let whole = |home: &crate::home::Home| {
            !home.dead && home.up && home.replica.as_ref().is_none_or(|replica| !replica.is_recovering())
        };
        let single = self
            .homes
            .iter()
            .filter_map(|home| home.replica.as_ref())
            .any(|replica| replica.state().keepers().len() < 2);
        if single || !self.homes.iter().all(whole) || self.homes[at].backup.is_none() {
            return;
        }
        self.homes[at].restore();
        self.start(at);
    }

    fn kill_hub(&mut self) {
        if self.homes.iter().any(|home| home.dead) {
            return;
        }
        let hubs = self.homes.iter().filter_map(|home| home.replica.as_ref());
        let few = hubs.clone().any(|replica| replica.state().keepers().len() < 3);
        let Some(hub) = hubs.max_by_key(|replica| replica.state().term()).map(|r| r.state().hub().clone())
        else {
            return;
        };
        let at = self.by_domain[&hub.domain];
        // The creator's home stays, so that there is an owner.
        if !few && at != 0 && self.truth.last() > 5 {
            self.homes[at].crash();
            self.homes[at].dead = true;
        }
    }

    /// Homes of invited accounts fetch the group.
    pub fn join_invited(&mut self) {
        for at in 0..self.homes.len() {
            if !self.homes[at].up || self.homes[at].replica.is_some() {
                continue;
            }
            let from = self.random.index(self.homes.len());
            if from != at {
                self.join(at, from);
            }
        }
    }
}
