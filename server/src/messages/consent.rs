//! Consent (06-messages, 6.9): what one account decides about another, and the queue of strangers' requests.

use bytes::Bytes;
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::pb;

use super::arrival::account_id;
use super::{DELIVERY, notice, receipt};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Need, Open, Relation, Transaction};
use crate::store::{LaneKey, OpenKind};

/// Senders withdrawn at once where a queue is too long.
const WITHDRAWN_MAX: usize = 8;

/// What the keys of a sender's requests in a mailbox begin with.
pub(super) fn request_key(sender: &AccountId) -> Bytes {
    let mut key = vec![u8::try_from(DELIVERY).unwrap_or(u8::MAX)];
    key.extend_from_slice(&sender.0);
    key.into()
}

/// The sender is accepted: what was held counts as placed, what was withheld is closed.
pub(super) fn release(shared: &Shared, transaction: &mut Transaction<'_>, key: LaneKey, now_ms: u64) {
    let lacking = transaction.change_lane(key, |lane, writes| {
        lane.relation.accepted = true;
        lane.relation.blocked = false;
        lane.service = 0;
        let held: Vec<(u64, Open)> = lane.open.iter().map(|(number, open)| (*number, *open)).collect();
        for (number, open) in held {
            match open.kind {
                OpenKind::Request if open.acknowledged => lane.dispose(key, number, writes),
                OpenKind::Request => lane.put(key, number, Open { kind: OpenKind::Placed, ..open }, writes),
                OpenKind::Placed | OpenKind::Withheld => {}
            }
        }
        std::mem::take(&mut lane.lacking)
    });
    close_withheld(shared, transaction, key, now_ms);
    for (number, devices) in lacking {
        let current = transaction.world().current_devices(&key.1);
        let devices: Vec<DeviceId> = devices
            .iter()
            .filter_map(|device| DeviceId::try_from(device).ok())
            .filter(|device| current.contains(device))
            .collect();
        if !devices.is_empty() {
            notice::missing_devices(shared, transaction, key, (number, &devices), now_ms);
        }
    }
    receipt::delivered(shared, transaction, key, now_ms);
}

/// Withheld numbers end as if they had expired.
fn close_withheld(shared: &Shared, transaction: &mut Transaction<'_>, key: LaneKey, now_ms: u64) {
    let Some(lane) = transaction.world().lane(&key) else { return };
    let Some(id) = lane.id.clone() else { return };
    let withheld: Vec<(u64, u64)> = lane
        .open
        .iter()
        .filter(|(_, open)| open.kind == OpenKind::Withheld)
        .map(|(number, open)| (*number, open.upto))
        .collect();
    for (from, to) in withheld {
        transaction.change_lane(key, |lane, writes| lane.dispose(key, from, writes));
        let reason = Refusal::from(Code::EXPIRED);
        notice::closed(shared, transaction, key, (&id, pb::Range { from, to }), (&reason, now_ms));
    }
}

/// Requests of a sender become withheld: their unread entries hold nothing any more.
fn withdraw(transaction: &mut Transaction<'_>, key: LaneKey) {
    if transaction.world().lane(&key).is_none_or(|lane| lane.held() == 0 && lane.service == 0) {
        return;
    }
    let prefix = request_key(&key.0);
    for device in transaction.world().current_devices(&key.1) {
        transaction.change_mailbox(&device, |mailbox, writes| {
            for n in mailbox.keyed_under(&prefix) {
                mailbox.void(n, pb::VoidReason::Withdrawn, writes);
            }
        });
    }
    transaction.change_lane(key, |lane, writes| {
        lane.service = 0;
        lane.lacking.clear();
        let held: Vec<(u64, Open)> = lane.open.iter().map(|(number, open)| (*number, *open)).collect();
        for (number, open) in held.into_iter().filter(|(_, open)| open.kind == OpenKind::Request) {
            lane.put(key, number, Open { kind: OpenKind::Withheld, ..open }, writes);
        }
    });
}

/// Where more strangers wait than an account holds, those that waited longest are withdrawn.
pub(super) fn bound_queue(shared: &Shared, transaction: &mut Transaction<'_>, account: AccountId) {
    let most = crate::config::Limits::size(shared.config.limits.request_queue_senders_max());
    for _ in 0..WITHDRAWN_MAX {
        let held = transaction.world().local(&account).filter(|held| held.requesters.len() > most);
        let Some(sender) = held.and_then(|held| held.requesters.first().copied()) else { return };
        // One that came to the front since this decision's needs were named waits for the next.
        if transaction.world().lane(&(sender, account)).is_none() {
            return;
        }
        withdraw(transaction, (sender, account));
    }
}

impl Shared {
    /// What one more stranger may need: the lanes of those who waited longest.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn queue_room(&self, recipient: AccountId) -> Result<Vec<Need>, Refusal> {
        let most = crate::config::Limits::size(self.config.limits.request_queue_senders_max());
        let needs = [Need::Account(recipient)];
        let oldest = self.state.view(&needs, |world| {
            let Some(held) = world.local(&recipient) else { return Vec::new() };
            let many = held.requesters.len().saturating_add(1).saturating_sub(most).min(WITHDRAWN_MAX);
            held.requesters.iter().take(many).map(|sender| Need::Lane((*sender, recipient))).collect()
        });
        oldest.await
    }

    /// An account decides about another.
    ///
    /// # Errors
    /// `message-malformed`, `unavailable`.
    pub async fn decide(&self, account: AccountId, request: pb::Decide) -> Result<(), Refusal> {
        let other = account_id(&request.account, "account")?;
        let decision = pb::Decision::try_from(request.decision).unwrap_or_default();
        if decision == pb::Decision::Unspecified || other == account {
            return Err(Code::MESSAGE_MALFORMED.because("decision"));
        }
        let key = (other, account);
        let now_ms = self.now_ms();
        let needs = [Need::Lane(key), Need::Account(account), Need::Account(other)];
        let (commit, woken) = {
            let mut transaction = self.state.begin(&needs).await?;
            let Relation { accepted, blocked } = transaction.world().relation(account, other);
            match decision {
                // What was withheld from a blocked one ends like a message to a device that is offline.
                pb::Decision::Accept if blocked => {
                    let relation = Relation { accepted: true, blocked: false };
                    transaction.change_lane(key, |lane, _| lane.relation = relation);
                }
                pb::Decision::Accept if !accepted => release(self, &mut transaction, key, now_ms),
                pb::Decision::Block if !blocked => {
                    if !accepted {
                        withdraw(&mut transaction, key);
                    }
                    transaction.change_lane(key, |lane, _| lane.relation.blocked = true);
                }
                pb::Decision::Unblock if blocked => {
                    transaction.change_lane(key, |lane, _| lane.relation = Relation::default());
                }
                pb::Decision::Dismiss if !accepted && !blocked => withdraw(&mut transaction, key),
                _ => {}
            }
            transaction.commit()
        };
        commit.durable().await?;
        self.wake(&woken);
        Ok(())
    }
}
