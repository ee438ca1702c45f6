//! A message arrives at the recipient's home: checked, then disposed of (06-messages, 6.2.1, 6.4 to 6.6, 6.9).
//!
//! The same steps serve a message of an account here and one that another home ships.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Address;
use tidings_proto::pb;

use super::rules::{self, Standing, Treatment};
use super::{DELIVERY, entry, notice};
use crate::accounts::heads;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{New, Open, Transaction, World};
use crate::store::{LaneKey, OpenKind};

/// A message for an account here.
pub(crate) struct Arrival<'a> {
    /// Sender and recipient.
    pub(crate) key: LaneKey,
    /// The lane as named on the wire.
    pub(crate) lane: &'a pb::LaneId,
    /// Its number; 0 for class service.
    pub(crate) number: u64,
    /// Content or service.
    pub(crate) class: pb::Class,
    /// It comes from another home.
    pub(crate) shipped: bool,
    /// It completes a number that was placed before.
    pub(crate) supplement: bool,
    /// Where the sender is reached.
    pub(crate) sender_address: &'a str,
    /// Where the recipient is reached; for own copies.
    pub(crate) recipient_address: &'a str,
    /// The sending device.
    pub(crate) sender_device: Bytes,
    /// The sender's newest head as its home knows it.
    pub(crate) sender_head: Bytes,
    /// The recipient's head it was made for.
    pub(crate) to_head: &'a Bytes,
    /// One for each device.
    pub(crate) payloads: &'a [pb::Payload],
    /// Franking.
    pub(crate) commitment: &'a Bytes,
    /// Franking, by the sender's home.
    pub(crate) franking_tag: Bytes,
    /// The group that a service message names.
    pub(crate) group: Bytes,
    /// It is a service message, and both accounts are in that group: it takes no consent.
    pub(crate) in_group: bool,
    /// By the clock of the sender's home.
    pub(crate) accepted_at_ms: u64,
    /// By the clock of the sender's home.
    pub(crate) expires_at_ms: u64,
}

/// What the checks found out.
pub(crate) struct Checked {
    /// Devices that get it: on the list, with a payload, and with a mailbox that takes something.
    takers: BTreeSet<DeviceId>,
    /// Devices on the list with a payload whose mailboxes take nothing.
    full: BTreeSet<DeviceId>,
    /// Devices on the list without a payload.
    missing: Vec<DeviceId>,
}

impl Checked {
    /// A mailbox that can take it is left.
    ///
    /// # Errors
    /// `mailbox-full`.
    pub(crate) fn room(&self) -> Result<(), Refusal> {
        if self.takers.is_empty() { Err(Code::MAILBOX_FULL.into()) } else { Ok(()) }
    }
}

impl Arrival<'_> {
    /// Account, head, devices: in the order of 6.2.1. What [`Checked::room`] says comes after.
    ///
    /// # Errors
    /// `no-such-account`, `account-closed`, `not-here`, `unknown-head`, `wrong-devices`.
    pub(crate) fn check(&self, world: &World, address: &Address) -> Result<Checked, Refusal> {
        let account = world.local(&self.key.1).ok_or(Code::NO_SUCH_ACCOUNT)?;
        let state = account.chain.state();
        if state.is_closed() {
            return Err(Code::ACCOUNT_CLOSED.into());
        }
        if state.address() != address {
            return Err(Code::NOT_HERE.because("the account has another address"));
        }
        let head = account.chain.head().to_bytes();
        let then = heads::devices_at(account, self.to_head)
            .ok_or_else(|| Code::UNKNOWN_HEAD.because("to_head").with_head(head.clone()))?;
        let named = rules::devices_of(self.payloads)?;
        let without_keys = world.devices_without_keys(&self.key.1);
        // A shipped list may lack devices: they had no prekeys when it was made, or its head is older.
        if self.supplement || self.class == pb::Class::Service || self.shipped {
            rules::some_devices(&named, &then, head.clone())?;
        } else {
            rules::exact_devices(&named, &then, &without_keys, head.clone())?;
        }
        let current = world.current_devices(&self.key.1);
        let missing = if self.supplement || self.class == pb::Class::Service {
            Vec::new()
        } else {
            current.difference(&named).filter(|id| !without_keys.contains(id)).copied().collect()
        };
        let listed: BTreeSet<DeviceId> = named.intersection(&current).copied().collect();
        if listed.is_empty() {
            let refusal = Code::WRONG_DEVICES.because("none of the devices is on the list");
            return Err(refusal
                .with_devices(current.iter().map(DeviceId::to_bytes).collect())
                .with_head(head));
        }
        let (takers, full) = listed.into_iter().partition(|id| world.has_room(id));
        Ok(Checked { takers, full, missing })
    }

    /// Places, holds or withholds it. The checks have passed.
    pub(crate) fn dispose(
        &self,
        shared: &Shared,
        transaction: &mut Transaction<'_>,
        checked: &Checked,
        now_ms: u64,
    ) {
        let treatment = self.treatment(shared, transaction.world());
        let fresh = self.number > 0 && !self.supplement;
        if fresh {
            self.begin(transaction);
        }
        let mut placed = BTreeSet::new();
        for device in &checked.full {
            transaction.lapse_if_full(device);
        }
        if treatment != Treatment::Withhold {
            for payload in self.payloads {
                if let Ok(device) = DeviceId::try_from(&payload.device)
                    && checked.takers.contains(&device)
                    && self.deliver(transaction, device, payload, (treatment == Treatment::Request, false))
                {
                    placed.insert(device);
                }
            }
        }
        if fresh {
            self.keep(transaction, treatment, &placed);
        } else if treatment == Treatment::Request {
            transaction.change_lane(self.key, |lane, _| lane.service = lane.service.saturating_add(1));
        }
        if fresh && !checked.missing.is_empty() {
            match treatment {
                Treatment::Place => {
                    notice::missing_devices(
                        shared,
                        transaction,
                        self.key,
                        (self.number, &checked.missing),
                        now_ms,
                    );
                }
                Treatment::Request => {
                    let devices = checked.missing.iter().map(DeviceId::to_bytes).collect();
                    transaction.change_lane(self.key, |lane, _| lane.lacking.push((self.number, devices)));
                }
                Treatment::Withhold => {}
            }
        }
        if treatment == Treatment::Request {
            super::consent::bound_queue(shared, transaction, self.key.1);
        }
    }

    /// Epoch and numbers that were skipped.
    fn begin(&self, transaction: &mut Transaction<'_>) {
        transaction.change_lane(self.key, |lane, writes| {
            if lane.id.as_ref() != Some(self.lane) {
                lane.begin_epoch(self.key, self.lane.clone(), writes);
            }
            lane.sender_address = self.sender_address.to_owned();
            let next = lane.disposed.saturating_add(1);
            if self.number > next {
                lane.lose(next, self.number.saturating_sub(1));
            }
        });
    }

    fn keep(&self, transaction: &mut Transaction<'_>, treatment: Treatment, placed: &BTreeSet<DeviceId>) {
        let kind = match treatment {
            Treatment::Place => OpenKind::Placed,
            Treatment::Request => OpenKind::Request,
            Treatment::Withhold => OpenKind::Withheld,
        };
        let open = Open { upto: self.number, expires_at_ms: self.expires_at_ms, kind, acknowledged: false };
        let listed = transaction.world().devices_of_both(&self.key);
        transaction.change_lane(self.key, |lane, writes| {
            lane.disposed = self.number;
            lane.keep(self.key, self.number, open, writes);
            for device in placed {
                lane.note_placed(*device, self.number, &listed);
            }
        });
    }

    fn treatment(&self, shared: &Shared, world: &World) -> Treatment {
        let relation = world.relation(self.key.1, self.key.0);
        let lane = world.lane(&self.key);
        let standing = Standing {
            accepted: relation.accepted || self.in_group,
            blocked: relation.blocked && !self.in_group,
            held: lane.map_or(0, |lane| lane.held().saturating_add(lane.service)),
        };
        rules::treatment(standing, shared.config.limits.request_queue_messages_max())
    }

    /// Puts it into one mailbox. Gives whether the mailbox took it.
    pub(crate) fn deliver(
        &self,
        transaction: &mut Transaction<'_>,
        device: DeviceId,
        payload: &pb::Payload,
        (request, own_copy): (bool, bool),
    ) -> bool {
        let numbered = self.number > 0 && !self.supplement;
        let lane = transaction.world().lane(&self.key).filter(|_| numbered);
        let delivery = pb::Delivery {
            lane: Some(self.lane.clone()),
            number: self.number,
            class: self.class.into(),
            sender_address: self.sender_address.to_owned(),
            sender_device: self.sender_device.clone(),
            sender_head: self.sender_head.clone(),
            payload: Some(payload.clone()),
            commitment: self.commitment.clone(),
            franking_tag: self.franking_tag.clone(),
            accepted_at_ms: self.accepted_at_ms,
            expires_at_ms: self.expires_at_ms,
            not_for_you: lane.map(|lane| lane.not_for_you(&device, self.number)).unwrap_or_default(),
            supplement: self.supplement,
            own_copy,
            request,
            group: self.group.clone(),
            recipient_address: if own_copy { self.recipient_address.to_owned() } else { String::new() },
        };
        let mut new =
            New { entry: entry(DELIVERY, &delivery), expires_at_ms: self.expires_at_ms, ..New::default() };
        if request {
            // It is found by its sender when it is withdrawn; the number keeps it from replacing another.
            let next = transaction
                .world()
                .device(&device)
                .map_or(0, |device| device.mailbox.last().saturating_add(1));
            new.key =
                [super::consent::request_key(&self.key.0).as_ref(), &next.to_be_bytes()].concat().into();
        }
        transaction.place(device, new)
    }
}

/// The lane of an account here towards another, as its messages name it now.
pub(super) fn lane_id(shared: &Shared, world: &World, (sender, recipient): LaneKey) -> pb::LaneId {
    let links = world.account(&sender).map_or(1, |account| u64::from(account.chain.state().address_links()));
    pb::LaneId {
        sender: sender.to_bytes(),
        recipient: recipient.to_bytes(),
        address_links: links,
        incarnation: shared.incarnation().to_bytes(),
    }
}

/// The account of an id in a request.
pub(super) fn account_id(bytes: &Bytes, field: &str) -> Result<AccountId, Refusal> {
    AccountId::try_from(bytes).map_err(|_| Code::MESSAGE_MALFORMED.because(field))
}
