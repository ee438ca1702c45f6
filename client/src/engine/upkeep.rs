//! What has to be done now and then: prekeys, the device's record, what was read, what is over (spec
//! 05-accounts, 5.5 and 5.6; 06-messages, 6.7).

use prost::Message as _;
use tidings_proto::limits;
use tidings_proto::pb;
use tidings_proto::sign::{Purpose, sha256};

use super::session::Session;
use super::{Ended, Engine, now_ms};
use crate::crypto::{PrekeyOrder, PrekeySet, generate_prekeys};
use crate::error::StoreError;
use crate::event::Event;
use crate::home::HomeError;
use crate::prekeys;
use crate::store::records::{prune_replaced, put_records, set_replaced};
use crate::store::{Tx, lanes, messages, put_value, queue, unreadable};

/// Capabilities of this library, ascending (registry/capabilities.toml).
pub(crate) const CAPABILITIES: [u64; 3] = [0, 2, 5];
/// Age at which the signed prekey is replaced (`outbox_kept_secs`, KEY-016).
const ROTATE_AFTER_MS: u64 = limits::OUTBOX_KEPT_SECS * 1000;
/// Time that the private half of a replaced prekey is kept (KEY-013).
const KEEP_REPLACED_MS: u64 =
    (limits::OUTBOX_AGE_MAX_SECS + limits::LIFETIME_MAX_SECS + limits::OUTBOX_KEPT_SECS) * 1000;

impl Engine {
    /// Does what is due; `state` is the home's word at the beginning of a connection.
    pub(super) async fn upkeep(
        &mut self,
        session: &mut Session,
        state: Option<&pb::DeviceState>,
    ) -> Result<(), Ended> {
        let now = now_ms();
        let mut tx = self.store.begin().await?;
        let gone = messages::delete_gone(&mut tx, now).await?;
        if state.is_some() {
            queue::release(&mut tx, now).await?;
            prune_replaced(&mut tx, now.saturating_sub(KEEP_REPLACED_MS)).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        if !gone.is_empty() {
            self.tell(Event::Disappeared { ids: gone });
        }
        for (conversation, number) in unreadable::expire(&self.store, now).await? {
            self.tell(Event::Gap { conversation, from: number, to: number });
        }
        if let Some(state) = state {
            self.publish_record(session).await?;
            self.replenish(session, state.one_time_ec.min(state.one_time_kyber)).await?;
            self.tell_read(session).await?;
        } else if self.rotation_is_due().await? {
            self.replenish(session, u32::MAX).await?;
        }
        Ok(())
    }

    async fn rotation_is_due(&self) -> Result<bool, StoreError> {
        let broken = |_| StoreError::Inconsistent { table: "meta", column: "rotated-at-ms" };
        let rotated = self.store.value("rotated-at-ms").await?;
        let rotated =
            rotated.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_be_bytes).map_err(broken))?;
        Ok(now_ms().saturating_sub(rotated) >= ROTATE_AFTER_MS)
    }

    /// Publishes prekeys where the home holds `stock` one-time ones: all of them in a new life of the home
    /// (KEY-017), a new signed one when the old has been there long enough, and more one-time ones where they
    /// are low (KEY-010).
    pub(super) async fn replenish(&mut self, session: &mut Session, stock: u32) -> Result<(), Ended> {
        let replace = self.store.value("prekeys-published").await?.is_none();
        let rotate = replace || self.rotation_is_due().await?;
        let low = u32::try_from(limits::ONE_TIME_PREKEYS_LOW).unwrap_or(20);
        if !rotate && stock >= low {
            return Ok(());
        }
        let one_time = if replace || stock < low { low.saturating_mul(2) } else { 0 };
        let publish = self.new_prekeys(one_time, rotate, replace).await?;
        match session.local.ask::<pb::Done>(&publish).await {
            Ok(pb::Done {}) => {
                let mut tx = self.store.begin().await?;
                put_value(&mut tx, "prekeys-published", b"1").await?;
                if rotate {
                    put_value(&mut tx, "rotated-at-ms", &now_ms().to_be_bytes()).await?;
                }
                tx.commit().await.map_err(StoreError::from)?;
            }
            Err(HomeError::Refused(refusal)) => {
                tracing::warn!(code = %refusal.code, "the home took no prekeys");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn new_prekeys(
        &mut self,
        one_time: u32,
        rotate: bool,
        replace: bool,
    ) -> Result<pb::PublishKeys, Ended> {
        let broken = StoreError::Inconsistent { table: "meta", column: "next-prekey" };
        let start_id = match self.store.value("next-prekey").await? {
            Some(bytes) => u32::from_be_bytes(bytes.try_into().map_err(|_| broken)?),
            None => 1,
        };
        let order = PrekeyOrder { start_id, one_time, rotate, now_ms: now_ms() };
        let set = generate_prekeys(&self.me.local.identity, &order, &mut self.rng)
            .map_err(|error| Ended::Halt(super::Halt::Refused(error.to_string())))?;
        let mut tx = self.store.begin().await?;
        if rotate {
            set_replaced(&mut tx, order.now_ms, replace).await?;
        }
        store_prekeys(&mut tx, &set).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(prekeys::publish(&set, replace))
    }

    /// Publishes this device's capabilities, if the home has others.
    async fn publish_record(&mut self, session: &mut Session) -> Result<(), Ended> {
        let broken = || StoreError::Inconsistent { table: "meta", column: "record" };
        let before = self.store.value("record").await?;
        let before = before.map(|bytes| pb::DeviceRecord::decode(bytes.as_slice()).map_err(|_| broken()));
        let before = before.transpose()?;
        if before.as_ref().is_some_and(|record| record.capabilities == CAPABILITIES) {
            return Ok(());
        }
        let record = pb::DeviceRecord {
            account: self.me.account.to_bytes(),
            device: self.me.device.to_bytes(),
            version: before.map_or(0, |record| record.version).saturating_add(1),
            capabilities: CAPABILITIES.to_vec(),
        };
        let body = record.encode_to_vec();
        let signature = self.me.key.sign(Purpose::DEVICE_RECORD, &body).to_bytes();
        let signed = pb::SignedRecord { body: body.clone().into(), signature };
        match session.local.ask::<pb::Done>(&pb::PublishRecord { record: Some(signed) }).await {
            Ok(pb::Done {}) => {
                let mut tx = self.store.begin().await?;
                put_value(&mut tx, "record", &body).await?;
                put_value(&mut tx, "record-hash", sha256(&body).as_ref()).await?;
                tx.commit().await.map_err(StoreError::from)?;
            }
            Err(HomeError::Refused(refusal)) => tracing::warn!(%refusal, "the home took no device record"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Says what was read since the home was last told, of accounts that the user accepted (PRV-009).
    pub(super) async fn tell_read(&mut self, session: &mut Session) -> Result<(), Ended> {
        for untold in self.store.untold().await? {
            let lane = pb::LaneId {
                sender: untold.sender.to_bytes(),
                recipient: self.me.account.to_bytes(),
                address_links: untold.lane.address_links,
                incarnation: untold.lane.incarnation.to_vec().into(),
            };
            let mark = pb::MarkRead { lane: Some(lane), upto: untold.upto, except: Vec::new() };
            match session.local.ask::<pb::Done>(&mark).await {
                Ok(pb::Done {}) => {}
                // A lane that the home does not hold any more: nobody is waiting to hear of it.
                Err(HomeError::Refused(refusal)) => {
                    tracing::debug!(code = %refusal.code, "not taken as read")
                }
                Err(error) => return Err(error.into()),
            }
            let mut tx = self.store.begin().await?;
            lanes::put_told(&mut tx, &untold).await?;
            tx.commit().await.map_err(StoreError::from)?;
        }
        Ok(())
    }
}

/// Writes the private halves before anything is published.
pub(crate) async fn store_prekeys(tx: &mut Tx, set: &PrekeySet) -> Result<(), StoreError> {
    put_records(tx, &set.private).await?;
    put_value(tx, "next-prekey", &set.next_id.to_be_bytes()).await
}
