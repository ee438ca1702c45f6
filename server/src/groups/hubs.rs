//! Whether the hubs of groups that this home keeps can be reached (chapter 07, succession).
//!
//! A connection can be dead for a minute before anybody notices. Therefore each hub is asked now and then about one
//! of its groups: one small request a hub, however many groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidings_proto::id::GroupId;
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::after::is_of_the_way;
use super::chains::Named;
use super::held::Held;
use super::lock;
use crate::node::Shared;

/// Groups that this home keeps, by the domain of their hub.
#[derive(Debug, Default)]
pub(super) struct Kept {
    by_hub: BTreeMap<Domain, BTreeSet<GroupId>>,
    hub_of: HashMap<GroupId, Domain>,
    /// Hubs that did not answer.
    silent: BTreeSet<Domain>,
}

impl Kept {
    fn set(&mut self, id: GroupId, hub: Option<&Domain>) {
        if self.hub_of.get(&id) == hub {
            return;
        }
        if let Some(old) = self.hub_of.remove(&id)
            && let Some(of) = self.by_hub.get_mut(&old)
        {
            of.remove(&id);
            if of.is_empty() {
                self.by_hub.remove(&old);
                self.silent.remove(&old);
            }
        }
        if let Some(hub) = hub {
            self.hub_of.insert(id, hub.clone());
            self.by_hub.entry(hub.clone()).or_default().insert(id);
        }
    }

    pub(super) fn of(&self, hub: &Domain) -> BTreeSet<GroupId> {
        self.by_hub.get(hub).cloned().unwrap_or_default()
    }
}

/// Asks hubs, again and again.
pub(crate) async fn watch_hubs(shared: Arc<Shared>) {
    let every = Duration::from_millis((shared.config.limits.group_hub_lost_ms() / 2).max(100));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let hubs: Vec<(Domain, GroupId)> = {
            let kept = lock(&shared.groups.kept);
            let one = |(hub, of): (&Domain, &BTreeSet<GroupId>)| Some((hub.clone(), *of.first()?));
            kept.by_hub.iter().filter_map(one).collect()
        };
        let mut asked = tokio::task::JoinSet::new();
        for (hub, id) in hubs {
            let shared = Arc::clone(&shared);
            asked.spawn(async move {
                let request = pb::KeeperAsk { group: id.to_bytes() };
                let answer = shared.ask_home::<_, pb::KeeperState>(None, &hub, &request);
                let answer = tokio::time::timeout(every, answer).await;
                let answers = answer
                    .is_ok_and(|answer| answer.as_ref().err().is_none_or(|refusal| !is_of_the_way(refusal)));
                (hub, answers)
            });
        }
        while let Some(asked) = asked.join_next().await {
            let Ok((hub, answers)) = asked else { continue };
            let was_silent = {
                let mut kept = lock(&shared.groups.kept);
                if answers { kept.silent.remove(&hub) } else { !kept.silent.insert(hub.clone()) }
            };
            match (answers, was_silent) {
                (true, true) => shared.home_is_back(&hub),
                (false, _) => shared.home_is_away(&hub),
                (true, false) => {}
            }
        }
    }
}

/// The group is kept here for another hub, or not any more.
pub(super) fn note_hub(shared: &Shared, id: GroupId, held: &Held) {
    let (state, own) = (held.replica.state(), &shared.groups.own.me);
    let keeps = state.hub() != own && state.keepers().contains(own);
    lock(&shared.groups.kept).set(id, keeps.then_some(&state.hub().domain));
}

impl Shared {
    /// A home cannot be reached: keepers of its groups count from here.
    pub(crate) fn home_is_away(self: &Arc<Self>, domain: &Domain) {
        let groups = lock(&self.groups.kept).of(domain);
        if groups.is_empty() {
            return;
        }
        let (shared, domain) = (Arc::clone(self), domain.clone());
        self.groups.spawn(async move {
            let nothing = Named::default();
            for id in groups {
                let told = shared.in_group(id, &nothing, |replica, context, _| {
                    replica.unreachable(context, &domain);
                });
                if let Err(refusal) = told.await.map(|_| ()) {
                    tracing::debug!(group = ?id, %refusal, "a group did not hear that its hub is away");
                }
            }
        });
    }
}
