//! A message that another home ships: disposal of its lane number (06-messages, 6.4).

use bytes::Bytes;
use prost::Message as _;
use tidings_federation::host::Verdict;
use tidings_proto::id::DeviceId;
use tidings_proto::name::{Address, Domain};
use tidings_proto::pb;
use tidings_proto::watermark::{Epoch, EpochOrder};

use crate::messages::{Arrival, rules};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Transaction, World, lane_key};
use crate::store::{LaneKey, PeerId};

/// Where a lane's epoch stands to the one on record.
enum Standing {
    Current,
    Newer,
}

/// A transfer or close as checked without looking at anybody.
pub(super) struct Named {
    pub(super) key: LaneKey,
    pub(super) lane: pb::LaneId,
    epoch: Epoch,
}

/// Sender, recipient and epoch of a lane.
pub(super) fn named(lane: Option<&pb::LaneId>) -> Result<Named, Refusal> {
    let malformed = || Code::MESSAGE_MALFORMED.because("lane");
    let lane = lane.ok_or_else(malformed)?;
    let incarnation = (&lane.incarnation).try_into().map_err(|_| malformed())?;
    Ok(Named {
        key: lane_key(lane).ok_or_else(malformed)?,
        lane: lane.clone(),
        epoch: Epoch { address_links: lane.address_links, incarnation },
    })
}

/// Form and sizes of a transfer.
pub(super) fn form(shared: &Shared, transfer: &pb::Transfer) -> Result<(Named, pb::Class), Refusal> {
    let limits = &shared.config.limits;
    let malformed = |what: &str| Code::MESSAGE_MALFORMED.because(what);
    let named = named(transfer.lane.as_ref())?;
    let Ok(class @ (pb::Class::Content | pb::Class::Service)) = pb::Class::try_from(transfer.class) else {
        return Err(malformed("class"));
    };
    DeviceId::try_from(&transfer.sender_device).map_err(|_| malformed("sender_device"))?;
    for field in [&transfer.sender_head, &transfer.to_head, &transfer.commitment, &transfer.franking_tag] {
        if field.len() != 32 {
            return Err(malformed("a head, the commitment or the tag"));
        }
    }
    if (class == pb::Class::Service) != (transfer.number == 0)
        || (transfer.supplement && transfer.number == 0)
    {
        return Err(malformed("content has a number, service has none"));
    }
    Address::parse(&transfer.sender_address).map_err(|_| malformed("sender_address"))?;
    Address::parse(&transfer.recipient_address).map_err(|_| malformed("recipient_address"))?;
    rules::devices_of(&transfer.payloads)?;
    rules::numbers(&transfer.payloads, limits.devices_max())?;
    rules::sizes(&transfer.payloads, limits.ciphertext_bytes_max())?;
    Ok((named, class))
}

impl Shared {
    /// The lane's sender is bound to an address at the writer's domain, and the lane's epoch is not a superseded
    /// one.
    fn lane_standing(
        &self,
        world: &World,
        (peer, domain): (PeerId, &Domain),
        named: &Named,
    ) -> Result<Standing, Refusal> {
        let unknown = |why: &str| Code::LANE_UNKNOWN.because(why);
        let sender = world.account(&named.key.0).filter(|account| !account.local);
        let sender = sender.ok_or_else(|| unknown("the sender's chain is not held"))?;
        if sender.chain.state().address().domain() != domain {
            return Err(unknown("the sender does not live at that domain"));
        }
        let incarnations = world.peer(peer).map(|peer| peer.incarnations.as_slice()).unwrap_or_default();
        let place = |incarnation: &tidings_proto::id::Incarnation| {
            incarnations
                .iter()
                .position(|known| known == incarnation)
                .and_then(|place| u64::try_from(place).ok())
        };
        if place(&named.epoch.incarnation).is_none() {
            return Err(unknown("an incarnation that is not on the server's chain"));
        }
        let held = world.lane(&named.key).and_then(|lane| lane.id.as_ref());
        let Some(held) = held.and_then(|held| self::named(Some(held)).ok()) else {
            return Ok(Standing::Newer);
        };
        match held.epoch.compare_by(&named.epoch, place) {
            EpochOrder::Same => Ok(Standing::Current),
            EpochOrder::Newer => Ok(Standing::Newer),
            EpochOrder::Older | EpochOrder::OtherIncarnation => Err(unknown("a superseded epoch")),
        }
    }

    /// A message from a peer.
    pub(super) fn take_transfer(
        &self,
        transaction: &mut Transaction<'_>,
        (peer, domain): (PeerId, &Domain),
        (transfer, in_group): (&pb::Transfer, bool),
        now_ms: u64,
    ) -> Verdict {
        let checked = form(self, transfer).and_then(|(named, class)| {
            let standing = self.lane_standing(transaction.world(), (peer, domain), &named)?;
            if !had_address(transaction.world(), &named.key, &transfer.sender_address) {
                return Err(Code::LANE_UNKNOWN.because("the sender's chain does not name that address"));
            }
            Ok((named, class, standing))
        });
        let (named, class, standing) = match checked {
            Ok(checked) => checked,
            Err(refusal) => return Verdict::Refused(refusal),
        };
        if matches!(standing, Standing::Newer) && class == pb::Class::Content && !transfer.supplement {
            transaction.change_lane(named.key, |lane, writes| {
                lane.begin_epoch(named.key, named.lane.clone(), writes)
            });
        }
        let disposed = match standing {
            Standing::Current => transaction.world().lane(&named.key).map_or(0, |lane| lane.disposed),
            Standing::Newer => 0,
        };
        let fresh = class == pb::Class::Content && !transfer.supplement;
        if fresh && transfer.number <= disposed {
            return known(transaction.world(), &named.key, transfer.number);
        }
        if transfer.supplement && transfer.number > disposed {
            return Verdict::Refused(Code::LANE_UNKNOWN.because("it completes nothing"));
        }
        let result = self.arrive(transaction, domain, (transfer, &named, class, in_group), now_ms);
        match result {
            Ok(()) => Verdict::Accepted,
            Err(refusal) => {
                if refusal.code == Code::MAILBOX_FULL {
                    transaction.lapse_full_of(&named.key.1, &transfer.payloads);
                }
                if fresh {
                    close(transaction, &named.key, transfer.number, &refusal);
                }
                Verdict::Refused(refusal)
            }
        }
    }

    /// Expiry, recipient, devices, mailboxes; then consent.
    fn arrive(
        &self,
        transaction: &mut Transaction<'_>,
        domain: &Domain,
        (transfer, named, class, in_group): (&pb::Transfer, &Named, pb::Class, bool),
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let skew = self.config.limits.clock_skew_ms();
        if transfer.expires_at_ms.saturating_add(skew) < now_ms {
            return Err(Code::EXPIRED.into());
        }
        let address = Address::parse(&transfer.recipient_address)
            .map_err(|_| Code::MESSAGE_MALFORMED.because("recipient_address"))?;
        if *address.domain() != self.config.domain {
            return Err(Code::NOT_HERE.into());
        }
        // A peer's clock cannot keep a message longer than this home would.
        let most = now_ms.saturating_add(self.config.limits.lifetime_max_secs().saturating_mul(1000));
        let arrival = Arrival {
            key: named.key,
            lane: &named.lane,
            number: transfer.number,
            class,
            shipped: true,
            supplement: transfer.supplement,
            sender_address: &transfer.sender_address,
            recipient_address: &transfer.recipient_address,
            sender_device: transfer.sender_device.clone(),
            sender_head: transfer.sender_head.clone(),
            to_head: &transfer.to_head,
            payloads: &transfer.payloads,
            commitment: &transfer.commitment,
            franking_tag: transfer.franking_tag.clone(),
            group: transfer.group.clone(),
            in_group: in_group && class == pb::Class::Service,
            accepted_at_ms: transfer.accepted_at_ms,
            expires_at_ms: transfer.expires_at_ms.min(most),
        };
        let checked = arrival.check(transaction.world(), &address)?;
        checked.room()?;
        arrival.dispose(self, transaction, &checked, now_ms);
        transaction.hand(named.key.1, domain, now_ms);
        Ok(())
    }

    /// Numbers that a peer will never ship.
    pub(super) fn take_close(
        &self,
        transaction: &mut Transaction<'_>,
        (peer, domain): (PeerId, &Domain),
        close: &pb::LaneClose,
    ) -> Verdict {
        let checked = named(close.lane.as_ref()).and_then(|named| {
            let numbers = close.numbers.as_ref().filter(|range| range.from >= 1 && range.from <= range.to);
            let numbers = numbers.ok_or_else(|| Code::MESSAGE_MALFORMED.because("numbers"))?;
            let standing = self.lane_standing(transaction.world(), (peer, domain), &named)?;
            Ok((named, *numbers, standing))
        });
        let (named, numbers, standing) = match checked {
            Ok(checked) => checked,
            Err(refusal) => return Verdict::Refused(refusal),
        };
        transaction.change_lane(named.key, |lane, writes| {
            if matches!(standing, Standing::Newer) {
                lane.begin_epoch(named.key, named.lane.clone(), writes);
            }
            let next = lane.disposed.saturating_add(1);
            if numbers.from > next {
                lane.lose(next, numbers.from.saturating_sub(1));
            }
            lane.disposed = lane.disposed.max(numbers.to);
        });
        Verdict::Accepted
    }
}

/// Whether the sender's chain names the address, now or before: what was accepted before a change still comes.
fn had_address(world: &World, key: &LaneKey, address: &str) -> bool {
    let Some(account) = world.account(&key.0) else { return false };
    let named = |link: &pb::Link| {
        let body = pb::AccountLinkBody::decode(link.body.clone()).unwrap_or_default();
        let genesis = body.genesis.is_some_and(|genesis| genesis.address == address);
        genesis || body.change_address.is_some_and(|change| change.address == address)
    };
    account.chain.state().address().to_string() == address || account.links.iter().any(named)
}

/// The answer to a number that was disposed of before.
fn known(world: &World, key: &LaneKey, number: u64) -> Verdict {
    let refused =
        world.lane(key).and_then(|lane| lane.refused.iter().find(|(refused, _)| *refused == number));
    let failure = refused.and_then(|(_, failure)| pb::Failure::decode(failure.clone()).ok());
    failure.map_or(Verdict::Accepted, |failure| Verdict::Refused(Refusal::from_pb(&failure)))
}

/// A number that is refused is closed here too: what is behind it is not a gap.
fn close(transaction: &mut Transaction<'_>, key: &LaneKey, number: u64, refusal: &Refusal) {
    let failure = Bytes::from(refusal.to_pb().encode_to_vec());
    transaction.change_lane(*key, |lane, _| {
        let next = lane.disposed.saturating_add(1);
        if number > next {
            lane.lose(next, number.saturating_sub(1));
        }
        lane.disposed = number;
        lane.refuse(number, failure);
    });
}
