//! A new incarnation of this home: mailboxes and counters begin anew, with what was held in them (03-logs, 3.7).

use tidings_proto::id::{Hash, Incarnation};

use super::log::{Log, New};
use super::{LogOf, Need, State, unreadable};
use crate::refusal::Refusal;
use crate::store::{DeviceRow, KeyKind};

/// Devices looked at in one step.
const BATCH: usize = 100;

impl State {
    /// Whether a mailbox is of another incarnation than this.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn is_outdated(&self, incarnation: Incarnation) -> Result<bool, Refusal> {
        let outdated = self.store.outdated(incarnation, 1).await.map_err(|error| unreadable(&error))?;
        Ok(!outdated.is_empty())
    }

    /// Brings every mailbox to this incarnation. Gives how many were of another.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn renew(&self, incarnation: Incarnation) -> Result<usize, Refusal> {
        let mut renewed = 0_usize;
        loop {
            let devices =
                self.store.outdated(incarnation, BATCH).await.map_err(|error| unreadable(&error))?;
            if devices.is_empty() {
                return Ok(renewed);
            }
            for device in devices {
                self.renew_device(&device, incarnation).await?;
                renewed = renewed.saturating_add(1);
            }
        }
    }

    /// Numbers from 1 for what no acknowledgement covers; no counter; no one-time prekeys of before.
    async fn renew_device(&self, row: &DeviceRow, incarnation: Incarnation) -> Result<(), Refusal> {
        let needs = [Need::Account(row.account), Need::Stock(row.id)];
        let rows = self.rows(&needs, LogOf::Device(row.id), 0, u64::MAX).await?;
        let commit = {
            let mut transaction = self.begin(&needs).await?;
            let mut log = Log::new(transaction.fresh_log(), incarnation);
            for held in rows {
                if let Some(entry) = held.content {
                    let new = New { entry, expires_at_ms: held.expires_at_ms, key: held.key, aux: held.aux };
                    let (writes, batch) = transaction.writes_and_batch();
                    log.append(new, batch, writes);
                }
            }
            let (signed, last_resort) = transaction
                .world()
                .stock(&row.id)
                .map(|stock| (stock.signed.clone(), stock.last_resort.clone()))
                .unwrap_or_default();
            transaction.clear_keys(row.id);
            for (kind, key) in [(KeyKind::Signed, signed), (KeyKind::LastResort, last_resort)] {
                if let Some(key) = key {
                    transaction.put_signed_key(row.id, kind, key);
                }
            }
            transaction.swap_mailbox(row.id, log);
            transaction.change_device(&row.id, |row| {
                (row.counter, row.digest) = (0, Hash::ZERO);
                (row.ec_high, row.kyber_high, row.told_low) = (0, 0, false);
            });
            transaction.commit().0
        };
        commit.durable().await
    }
}
