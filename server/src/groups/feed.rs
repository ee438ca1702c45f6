//! What the event stream of a device reads of its groups: pulled when there is room, never pushed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidings_proto::codec;
use tidings_proto::group_log::GroupPosition;
use tidings_proto::id::{AccountId, DeviceId, GroupId};
use tidings_proto::pb;
use tokio::sync::Notify;

use super::chains::Named;
use super::decide::{cursor_of, row_of};
use super::held::{Held, event};
use super::{Groups, lock};
use crate::node::Shared;
use crate::refusal::Refusal;
use crate::state::unreadable;
use crate::store::{GroupCursorRow, GroupWrites};

/// News for one event stream.
#[derive(Debug)]
pub(crate) struct Feed {
    wake: Arc<Notify>,
    news: Mutex<News>,
    deaf: bool,
}

/// What happened since the stream looked.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Groups with something new.
    pub groups: BTreeSet<GroupId>,
    /// What the device acknowledged.
    pub acknowledged: BTreeMap<GroupId, u64>,
    /// Where it wants to read again from.
    pub rewound: BTreeMap<GroupId, u64>,
}

impl Feed {
    /// Of a device whose program does not know groups: it never hears anything.
    pub(crate) fn deaf(wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { wake, news: Mutex::default(), deaf: true })
    }

    /// Whether nothing is to be sent.
    pub(crate) const fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// What happened since the last look.
    pub(crate) fn take(&self) -> News {
        std::mem::take(&mut *lock(&self.news))
    }

    fn tell(&self, tell: impl FnOnce(&mut News)) {
        tell(&mut lock(&self.news));
        self.wake.notify_waiters();
    }

    /// The device has a group's log up to a number.
    pub(crate) fn acknowledged(&self, id: GroupId, seq: u64) {
        self.tell(|news| {
            let held = news.acknowledged.entry(id).or_insert(seq);
            *held = seq.max(*held);
        });
    }

    /// The device reads a group's log again from behind a number.
    pub(crate) fn rewound(&self, id: GroupId, after: u64) {
        self.tell(|news| {
            news.rewound.insert(id, after);
            news.groups.insert(id);
        });
    }
}

/// Where an event stream is in one group's log.
#[derive(Debug, Default, Clone)]
pub(crate) struct Reading {
    /// The last number sent.
    after: u64,
    /// The stay in memory that this is about; 0: none yet.
    stay: u64,
    cuts: usize,
    /// The body of the last signed head that was sent, and the marks beside it.
    head: (Bytes, u64, u64),
    /// The link of its server's chain that it names.
    signer: Option<Bytes>,
}

impl Reading {
    /// Goes back to behind a number.
    pub(crate) fn rewind(&mut self, after: u64) {
        self.after = after;
        self.head = (Bytes::new(), 0, 0);
    }

    /// An event was sent.
    pub(crate) const fn sent(&mut self, seq: u64) {
        self.after = seq;
    }

    /// The signed end was sent.
    pub(crate) fn sent_head(&mut self, event: &pb::GroupHeadEvent) {
        self.head = Self::said(event);
        self.signer = event.head.as_ref().and_then(signer_of);
    }

    fn said(event: &pb::GroupHeadEvent) -> (Bytes, u64, u64) {
        let body = event.head.as_ref().map(|head| head.body.clone()).unwrap_or_default();
        (body, event.all_delivered, event.all_read)
    }
}

/// The next frames of a group for a device.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// Events in order, with their numbers: whole frames.
    pub events: Vec<(u64, Bytes)>,
    /// A gap before them.
    pub gap: Option<Bytes>,
    /// The signed end, where the events reach it.
    pub head: Option<pb::GroupHeadEvent>,
    /// There may be more.
    pub more: bool,
}

impl Groups {
    /// A feed for a device's stream, which wakes it by what its mailbox wakes it.
    pub(crate) fn feed(&self, account: AccountId, wake: Arc<Notify>) -> Arc<Feed> {
        let feed = Arc::new(Feed { wake, news: Mutex::default(), deaf: false });
        let mut feeds = lock(&self.feeds);
        let of = feeds.entry(account).or_default();
        of.retain(|feed| feed.strong_count() > 0);
        of.push(Arc::downgrade(&feed));
        feed
    }

    /// A stream has ended.
    pub(crate) fn unfeed(&self, account: AccountId) {
        let mut feeds = lock(&self.feeds);
        if let Some(of) = feeds.get_mut(&account) {
            of.retain(|feed| feed.strong_count() > 0);
            if of.is_empty() {
                feeds.remove(&account);
            }
        }
    }

    /// Whether a stream of somebody reads a group.
    pub(super) fn is_read(&self, held: &Held) -> bool {
        let feeds = lock(&self.feeds);
        let live =
            |account| feeds.get(account).is_some_and(|of| of.iter().any(|feed| feed.strong_count() > 0));
        held.readers.keys().any(live)
    }

    /// Readers have something new.
    pub(super) fn wake(&self, id: GroupId, readers: &[AccountId]) {
        let feeds = lock(&self.feeds);
        let of = readers.iter().filter_map(|account| feeds.get(account)).flatten();
        let awake: Vec<Arc<Feed>> = of.filter_map(std::sync::Weak::upgrade).collect();
        drop(feeds);
        for feed in awake {
            feed.tell(|news| {
                news.groups.insert(id);
            });
        }
    }
}

impl Shared {
    /// Groups that a device's account reads.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn groups_read_by(&self, account: AccountId) -> Result<Vec<GroupId>, Refusal> {
        self.state.all_so_far().durable().await?;
        let groups = self.state.store().groups_of(account).await.map_err(|error| unreadable(&error))?;
        Ok(groups.into_iter().map(|(id, _)| id).collect())
    }

    /// The next of a group for a device, at most so many events; `None` if it is not for this account any more.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn next_of_group(
        self: &Arc<Self>,
        id: GroupId,
        (account, device): (AccountId, DeviceId),
        reading: &mut Reading,
        most: usize,
    ) -> Result<Option<Next>, Refusal> {
        let slot = self.groups.slot(id);
        let mut place = slot.lock().await;
        let held = self.held(id, &mut place).await?;
        let Some(mut held) = held else {
            drop(place);
            drop(slot);
            self.groups.forget(id);
            return Ok(None);
        };
        let Some(upto) = held.readers.get(&account).copied() else {
            *place = Some(held);
            return Ok(None);
        };
        self.begin_reading(id, device, &mut held, reading).await?;
        let durable = self.state.durable();
        let mut next = Next::default();
        let first = held.replica.first();
        if reading.after < first.seq {
            next.gap = Some(gap(id, &held, device, first));
            reading.after = first.seq;
        }
        let recent = held.recent(reading.after, most, durable);
        let end = if upto > 0 { upto.min(held.last()) } else { held.last() };
        let known = self.known_to(&held.replica, &Named::default()).await?;
        let head = (upto == 0).then(|| {
            let context = self.groups.own.context(self.now_ms(), &known);
            let head = held.replica.signed_head(&context);
            let (all_delivered, all_read) = (held.replica.all_delivered(), held.replica.all_read());
            // With the chain that it takes to verify it, where the device may not have it.
            let signer = head.as_ref().and_then(signer_of);
            let known = signer.is_some() && signer == reading.signer;
            let evidence = if known { Vec::new() } else { self.evidence_of_head(head.as_ref()) };
            let event = |head| pb::GroupHeadEvent { head: Some(head), all_delivered, all_read, evidence };
            head.map(event)
        });
        *place = Some(held);
        drop(place);
        next.events = match recent {
            Some(recent) => recent.into_iter().map(|recent| (recent.row.seq, recent.frame)).collect(),
            None => {
                let rows = self.state.store().group_entries(id, reading.after.saturating_add(1), most).await;
                let rows = rows.map_err(|error| unreadable(&error))?.into_iter().map(row_of);
                rows.map(|row| (row.seq, event(id, &row.record))).collect()
            }
        };
        next.events.retain(|(seq, _)| *seq <= end);
        let last = next.events.last().map_or(reading.after, |(seq, _)| *seq);
        next.more = last < end && !next.events.is_empty();
        // A head may name entries that are not durable yet, or that there was no room for: then it comes with them.
        let said = head.flatten().filter(|_| last >= end);
        next.head = said.filter(|event| Reading::said(event) != reading.head);
        Ok(Some(next))
    }

    /// A stream that begins goes on where the device's cursor is; a device without one begins at the end.
    async fn begin_reading(
        self: &Arc<Self>,
        id: GroupId,
        device: DeviceId,
        held: &mut Held,
        reading: &mut Reading,
    ) -> Result<(), Refusal> {
        if reading.stay != held.stay {
            let cursor = match held.cursors.get(&device) {
                Some(cursor) => *cursor,
                None => self.begin_cursor(id, device, held).await?,
            };
            *reading =
                Reading { after: cursor.seq, stay: held.stay, cuts: held.cuts.len(), ..Reading::default() };
        }
        if let Some(cuts) = held.cuts.get(reading.cuts..)
            && let Some(after) = cuts.iter().min()
        {
            if *after < reading.after {
                reading.rewind(*after);
            }
            reading.cuts = held.cuts.len();
        }
        Ok(())
    }

    async fn begin_cursor(
        self: &Arc<Self>,
        id: GroupId,
        device: DeviceId,
        held: &mut Held,
    ) -> Result<GroupCursorRow, Refusal> {
        let cursor = cursor_of(&held.replica.position().to_pb());
        let mut writes = GroupWrites::default();
        writes.cursors.insert((id, device), Some(cursor));
        {
            let mut transaction = self.state.begin(&[]).await?;
            transaction.writes_and_batch().0.groups.absorb(writes);
            let _nobody_waits = transaction.commit();
        }
        held.cursors.insert(device, cursor);
        Ok(cursor)
    }
}

fn signer_of(head: &pb::SignedGroupHead) -> Option<Bytes> {
    let head = <pb::GroupHead as prost::Message>::decode(head.body.clone()).ok()?;
    head.hub.map(|hub| hub.head)
}

fn gap(id: GroupId, held: &Held, device: DeviceId, first: GroupPosition) -> Bytes {
    let cursor = held.cursors.get(&device).copied().unwrap_or_default();
    let after = pb::GroupPosition { term: cursor.term, seq: cursor.seq, hash: cursor.hash.to_bytes() };
    codec::encode(&pb::GroupGap { group: id.to_bytes(), after: Some(after), first: Some(first.to_pb()) })
}
