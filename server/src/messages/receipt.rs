//! Watermarks (06-messages, 6.7): delivered, made here when a device acknowledges; read, told by a device.

use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::pb;
use tidings_proto::watermark::{Read, ReadError};

use super::{notice, watermark};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Need, Transaction, lane_key};
use crate::store::LaneKey;

/// Tells the sender how far the lane is delivered, if it moved and the recipient accepted the sender.
pub(crate) fn delivered(shared: &Shared, transaction: &mut Transaction<'_>, key: LaneKey, now_ms: u64) {
    let Some(lane) = transaction.world().lane(&key) else { return };
    let upto = lane.delivered();
    if upto <= lane.told || !lane.relation.accepted || lane.relation.blocked {
        return;
    }
    let mark = pb::Watermark {
        kind: pb::WatermarkKind::Delivered.into(),
        lane: lane.id.clone(),
        upto,
        except: Vec::new(),
        at_ms: now_ms,
    };
    transaction.change_lane(key, |lane, _| lane.told = upto);
    notice::tell_mark(shared, transaction, key, &mark, now_ms);
}

/// Tells the sender what the recipient read, if the recipient accepted the sender: up to the first number that is
/// held or withheld.
pub(crate) fn read_on(shared: &Shared, transaction: &mut Transaction<'_>, key: LaneKey, now_ms: u64) {
    let Some(lane) = transaction.world().lane(&key) else { return };
    let upto = lane.read.n().min(lane.stop());
    if upto == 0 || !lane.relation.accepted || lane.relation.blocked {
        return;
    }
    let mark = pb::Watermark {
        kind: pb::WatermarkKind::Read.into(),
        lane: lane.id.clone(),
        upto,
        except: lane.read.except().filter(|number| *number <= upto).collect(),
        at_ms: now_ms,
    };
    notice::tell_mark(shared, transaction, key, &mark, now_ms);
}

/// A read watermark as told.
///
/// # Errors
/// `limit-exceeded`, `message-malformed`.
pub(crate) fn read(upto: u64, except: &[u64]) -> Result<Read, Refusal> {
    Read::new(upto, except).map_err(|error| match error {
        ReadError::TooMany(_) => Code::LIMIT_EXCEEDED.because("exceptions"),
        other => Code::MESSAGE_MALFORMED.because(&other.to_string()),
    })
}

impl Shared {
    /// An account read a lane up to a number: told to its own other devices and to the sender.
    ///
    /// # Errors
    /// `message-malformed`, `limit-exceeded`, `lane-unknown`, `unavailable`.
    pub async fn mark_read(
        &self,
        account: AccountId,
        device: DeviceId,
        request: pb::MarkRead,
    ) -> Result<(), Refusal> {
        let malformed = || Code::MESSAGE_MALFORMED.because("lane");
        let named = request.lane.as_ref().ok_or_else(malformed)?;
        let key = lane_key(named).ok_or_else(malformed)?;
        if key.1 != account {
            return Err(Code::LANE_UNKNOWN.because("not a lane towards this account"));
        }
        if request.upto == 0 {
            return Err(Code::MESSAGE_MALFORMED.because("upto"));
        }
        let told = read(request.upto, &request.except)?;
        let now_ms = self.now_ms();
        let needs = [Need::Lane(key), Need::Account(account), Need::Account(key.0)];
        let (commit, woken) = {
            let mut transaction = self.state.begin(&needs).await?;
            let lane = transaction.world().lane(&key).filter(|lane| lane.id.as_ref() == Some(named));
            let lane = lane.ok_or(Code::LANE_UNKNOWN)?;
            if request.upto > lane.disposed {
                return Err(Code::MESSAGE_MALFORMED.because("upto is above the lane's end"));
            }

            let read =
                transaction.change_lane(key, |lane, _| lane.read.merge(&told).then(|| lane.read.clone()));
            if let Some(read) = read {
                let mark = pb::Watermark {
                    kind: pb::WatermarkKind::Read.into(),
                    lane: Some(named.clone()),
                    upto: read.n(),
                    except: read.except().collect(),
                    at_ms: now_ms,
                };
                let own = transaction.world().current_devices(&account);
                for other in own.into_iter().filter(|other| *other != device) {
                    transaction.place(other, watermark(key, &mark));
                }
                read_on(self, &mut transaction, key, now_ms);
            }
            transaction.commit()
        };
        commit.durable().await?;
        self.wake(&woken);
        Ok(())
    }
}
