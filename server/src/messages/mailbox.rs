//! Mailboxes as the event stream sees them: read, acknowledged, resumed (03-logs, 3.4 to 3.6).

use tidings_proto::id::{AccountId, DeviceId, Hash, Incarnation};
use tidings_proto::pb;

use super::receipt;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{LogOf, Need, Transaction, delivery_of};
use crate::store::{EntryRow, LaneKey, OpenKind};

impl Shared {
    /// A device's state, for Ready; `None` if it is on no list here.
    pub async fn device_state(&self, (account, id): (AccountId, DeviceId)) -> Option<pb::DeviceState> {
        let needs = [Need::Account(account), Need::Stock(id)];
        let state = self.state.view(&needs, |world| {
            let device = world.device(&id)?;
            let log = device.mailbox.row();
            let (ec, kyber) = world.stock(&id).map(crate::state::Stock::left).unwrap_or_default();
            let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let digest =
                if device.row.counter == 0 { bytes::Bytes::new() } else { device.row.digest.to_bytes() };
            Some(pb::DeviceState {
                mailbox_last: Some(position(self.incarnation(), log.last, log.hash)),
                mailbox_first: log.first,
                counter: device.row.counter,
                counter_digest: digest,
                account_head: world.account(&account)?.chain.head().to_bytes(),
                one_time_ec: count(ec),
                one_time_kyber: count(kyber),
            })
        });
        // What Ready states is durable before it is sent.
        let state = state.await.ok().flatten()?;
        self.state.all_so_far().durable().await.ok()?;
        Some(state)
    }

    /// Where a device's event stream starts: what it asks for, or the oldest entry there is. A mailbox that
    /// lapsed takes entries again.
    ///
    /// # Errors
    /// `message-malformed`; in connection scope `position-invalid`.
    pub async fn sync_start(
        &self,
        (account, id): (AccountId, DeviceId),
        after: Option<&pb::Position>,
    ) -> Result<pb::Position, Refusal> {
        let incarnation = self.incarnation();
        let needs = [Need::Account(account)];
        let ends = |world: &crate::state::World| world.device(&id).map(|device| device.mailbox.row().clone());
        let log = self.state.view(&needs, ends).await?.ok_or(Code::AUTH_UNKNOWN)?;
        if log.lapsed {
            let (commit, _) = {
                let mut transaction = self.state.begin(&needs).await?;
                transaction.change_mailbox(&id, |mailbox, _| mailbox.revive());
                transaction.commit()
            };
            commit.durable().await?;
        }
        let oldest = position(incarnation, log.first.saturating_sub(1), log.before);
        let Some(after) = after.filter(|after| *after != &pb::Position::default()) else {
            return Ok(oldest);
        };
        let told = told(after)?;
        if after.incarnation != incarnation.to_bytes() || after.n < log.first.saturating_sub(1) {
            return Ok(oldest);
        }
        match self.state.hash(LogOf::Device(id), after.n).await? {
            Some(known) if known == told => Ok(position(incarnation, after.n, known)),
            _ => {
                tracing::warn!(
                    device = ?id, told = after.n, last = log.last,
                    "a device names a position that this server never had: one of them has lost state"
                );
                Err(Code::POSITION_INVALID.into())
            }
        }
    }

    /// Everything up to a position is durable at the device. Gives the number.
    ///
    /// # Errors
    /// `position-invalid` for a position the mailbox never had, `message-malformed`, `unavailable`.
    pub async fn acknowledge(
        &self,
        (account, id): (AccountId, DeviceId),
        ack: &pb::Ack,
    ) -> Result<u64, Refusal> {
        let in_connection = |refusal: Refusal| Refusal { scope: pb::Scope::Connection, ..refusal };
        let position = ack
            .position
            .as_ref()
            .ok_or(Code::MESSAGE_MALFORMED)
            .map_err(|code| in_connection(code.into()))?;
        let told = told(position).map_err(in_connection)?;
        if position.incarnation != self.incarnation().to_bytes() {
            return Err(Code::POSITION_INVALID.because("another incarnation"));
        }
        let needs = [Need::Account(account)];
        let first =
            self.state.view(&needs, |world| world.device(&id).map(|device| device.mailbox.first())).await?;
        let first = first.ok_or(Code::AUTH_UNKNOWN)?;
        if position.n < first {
            return Ok(position.n);
        }
        let known = self.state.hash(LogOf::Device(id), position.n).await?;
        if known != Some(told) {
            tracing::warn!(device = ?id, told = position.n, "a device acknowledges what this server never had");
            return Err(Code::POSITION_INVALID.because("another hash, or beyond the end"));
        }
        let rows = self.state.rows(&needs, LogOf::Device(id), first, position.n).await?;
        let numbers = numbers_of(&rows, account);
        let mut needs = needs.to_vec();
        for (key, ..) in &numbers {
            needs.extend([Need::Lane(*key), Need::Account(key.0)]);
        }
        let now_ms = self.now_ms();
        let (commit, woken) = {
            let mut transaction = self.state.begin(&needs).await?;
            transaction.change_mailbox(&id, |mailbox, writes| mailbox.trim(position.n, told, writes));
            let mut lanes: Vec<LaneKey> = Vec::new();
            for (key, lane, number) in numbers {
                hold(&mut transaction, key, &lane, number);
                if lanes.last() != Some(&key) {
                    lanes.push(key);
                }
            }
            lanes.sort_unstable();
            lanes.dedup();
            for lane in lanes {
                receipt::delivered(self, &mut transaction, lane, now_ms);
            }
            transaction.commit()
        };
        commit.durable().await?;
        self.wake(&woken);
        Ok(position.n)
    }
}

/// A device holds a number: it is disposed of, unless its sender still waits to be accepted.
/// What is of an earlier epoch says nothing about this one's numbers.
fn hold(transaction: &mut Transaction<'_>, key: LaneKey, named: &pb::LaneId, number: u64) {
    let open = transaction.world().lane(&key).filter(|lane| lane.id.as_ref() == Some(named));
    if open.is_none_or(|lane| !lane.open.contains_key(&number)) {
        return;
    }
    transaction.change_lane(key, |lane, writes| {
        let Some(open) = lane.open.get(&number).copied() else { return };
        match open.kind {
            OpenKind::Placed => lane.dispose(key, number, writes),
            OpenKind::Request => {
                lane.put(key, number, crate::state::Open { acknowledged: true, ..open }, writes);
            }
            OpenKind::Withheld => {}
        }
    });
}

/// Lanes and numbers of content for this account among rows.
fn numbers_of(rows: &[EntryRow], account: AccountId) -> Vec<(LaneKey, pb::LaneId, u64)> {
    rows.iter()
        .filter_map(|row| row.content.as_ref().and_then(delivery_of))
        .filter(|(key, delivery)| key.1 == account && delivery.number > 0 && !delivery.own_copy)
        .filter_map(|(key, delivery)| Some((key, delivery.lane?, delivery.number)))
        .collect()
}

/// The hash of a position as told.
fn told(position: &pb::Position) -> Result<Hash, Refusal> {
    let malformed = || Code::MESSAGE_MALFORMED.because("position");
    Incarnation::try_from(&position.incarnation).map_err(|_| malformed())?;
    let hash = Hash::try_from(&position.hash).map_err(|_| malformed())?;
    if position.n == 0 && !hash.is_zero() { Err(malformed()) } else { Ok(hash) }
}

fn position(incarnation: Incarnation, n: u64, hash: Hash) -> pb::Position {
    pb::Position { incarnation: incarnation.to_bytes(), n, hash: hash.to_bytes() }
}
