//! How far devices have the logs of groups, and where their streams begin anew.

use std::sync::Arc;

use tidings_proto::id::{AccountId, DeviceId, GroupId};
use tidings_proto::pb;

use super::chains::Named;
use super::decide::{cursor_at, cursor_of, row_of};
use super::group_id;
use super::held::Held;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Need, unreadable};
use crate::store::GroupWrites;

impl Shared {
    /// A device has a group's log durably up to a position. Gives the number.
    ///
    /// # Errors
    /// In connection scope `message-malformed`, `position-invalid`; `unavailable`.
    pub(crate) async fn acknowledge_group(
        self: &Arc<Self>,
        (account, device): (AccountId, DeviceId),
        ack: &pb::GroupAck,
    ) -> Result<Option<(GroupId, u64)>, Refusal> {
        let malformed = |what: &str| {
            let refusal = Code::MESSAGE_MALFORMED.because(what);
            Refusal { scope: pb::Scope::Connection, ..refusal }
        };
        let id = GroupId::try_from(&ack.group).map_err(|_| malformed("group"))?;
        let position = ack.position.as_ref().ok_or_else(|| malformed("position"))?;
        let slot = self.groups.slot(id);
        let mut place = slot.lock().await;
        let Some(mut held) = self.held(id, &mut place).await? else {
            drop(place);
            drop(slot);
            self.groups.forget(id);
            // Of a group that is gone from here; nothing hangs on it.
            return Ok(None);
        };
        let cursor = held.cursors.get(&device).copied().unwrap_or_default();
        let there = held.readers.contains_key(&account);
        if !there || position.seq <= cursor.seq || position.seq > held.last() {
            *place = Some(held);
            return Ok(there.then_some((id, position.seq)));
        }
        let known_to_be = match held.row(position.seq) {
            Some(row) => cursor_at(row),
            None if position.seq == held.last() => Some(cursor_of(&held.replica.position().to_pb())),
            None => {
                let rows = self.state.store().group_entries(id, position.seq, 1).await;
                let rows = rows.map_err(|error| unreadable(&error))?;
                let row = rows.into_iter().next().map(row_of);
                row.filter(|row| row.seq == position.seq).and_then(|row| cursor_at(&row))
            }
        };
        let told = cursor_of(position);
        if known_to_be != Some(told) {
            // Of a term that is void by now: the device is sent what stands there instead.
            tracing::debug!(?device, seq = position.seq, "an acknowledgement of another history");
            *place = Some(held);
            return Ok(None);
        }
        held.cursors.insert(device, told);
        let known = self.known_to(&held.replica, &Named::default()).await?;
        let mut writes = GroupWrites::default();
        writes.cursors.insert((id, device), Some(told));
        self.forget_removed(id, &mut held, account, &mut writes).await?;
        if held.readers.get(&account) == Some(&0) {
            let context = self.groups.own.context(self.now_ms(), &known);
            held.replica.mark(&context, &account, told.seq, 0);
        }
        let (commit, effects) = {
            let mut transaction = self.state.begin(&[]).await?;
            transaction.writes_and_batch().0.groups.absorb(writes);
            let effects = self.conclude_in(id, &mut held, &mut transaction);
            (transaction.commit().0, effects)
        };
        held.shrink(commit.so_far());
        self.leave(id, &held, &commit, effects);
        *place = Some(held);
        drop(place);
        commit.durable().await?;
        Ok(Some((id, told.seq)))
    }

    /// All devices of an account that was removed have what they may have: nothing more is kept for them.
    async fn forget_removed(
        &self,
        id: GroupId,
        held: &mut Held,
        account: AccountId,
        writes: &mut GroupWrites,
    ) -> Result<(), Refusal> {
        let Some(upto) = held.readers.get(&account).copied().filter(|upto| *upto > 0) else { return Ok(()) };
        let needs = [Need::Account(account)];
        let devices = self.state.view(&needs, |world| world.current_devices(&account)).await?;
        let cursor = |device: &DeviceId| held.cursors.get(device).map_or(upto, |cursor| cursor.seq);
        if devices.iter().all(|device| cursor(device) >= upto) {
            held.readers.remove(&account);
            writes.readers.insert((id, account), None);
            for device in devices {
                held.cursors.remove(&device);
                writes.cursors.insert((id, device), None);
            }
        }
        Ok(())
    }

    /// Where a device's stream is to begin anew in a group's log.
    ///
    /// # Errors
    /// `message-malformed`, `not-a-member`, `no-such-group`.
    pub(crate) async fn rewind_group(
        self: &Arc<Self>,
        account: AccountId,
        request: &pb::GroupRewind,
    ) -> Result<(GroupId, u64), Refusal> {
        let id = group_id(&request.group)?;
        let after = request.after.as_ref().map_or(0, |after| after.seq);
        let slot = self.groups.slot(id);
        let mut place = slot.lock().await;
        let held = self.held(id, &mut place).await?.ok_or(Code::NO_SUCH_GROUP)?;
        let there = held.readers.contains_key(&account);
        let last = held.last();
        *place = Some(held);
        // Beyond the end: this home was restored, and the device has more than it.
        if there { Ok((id, after.min(last))) } else { Err(Code::NOT_A_MEMBER.into()) }
    }
}
