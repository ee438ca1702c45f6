//! Entries of a peer's outbox: what each does here (09-federation, 9.7).

use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;

use tidings_federation::host::{Content, Incoming, NotNow, Taken, Verdict};

use tidings_proto::name::{Address, Domain};
use tidings_proto::pb;

use super::transfer::named;
use crate::messages::{CHAIN_ANNOUNCE, LANE_CLOSE, NOTICE, TRANSFER, WATERMARK, lasting, notice, receipt};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Need, Transaction, Woken, World};
use crate::store::{LaneKey, PeerId};

/// Devices that a chain can list.
const DEVICES_MAX: usize = 32;
/// Answers taken in a row when a chain is asked for: more than the longest chain between two checkpoints has.
const ROUNDS_MAX: usize = 128;
/// Entries taken in one decision.
const CHUNK: usize = 64;

/// An entry as parsed.
enum Parsed {
    /// And whether it names a group that both accounts are in.
    Transfer(Box<pb::Transfer>, bool),
    Close(pb::LaneClose),
    Notice(pb::Notice),
    Watermark(pb::Watermark),
    /// An announcement: its effects are there already.
    Announced,
    Nothing,
    Refused(Refusal),
}

struct Prepared {
    parsed: Parsed,
    /// The recipient's queue of requests is full.
    crowded: bool,
}

impl Shared {
    /// Takes entries in order; one wait for durability serves all.
    pub(super) async fn take_entries(
        &self,
        (peer, domain): (PeerId, &Domain),
        batch: Vec<Incoming>,
    ) -> Result<Taken, Refusal> {
        let mut taken = Taken::default();
        let (mut last, mut woken) = (None, Woken::default());
        let mut batch = batch.into_iter().peekable();
        while batch.peek().is_some() && taken.not_now.is_none() {
            let (mut needs, mut ready) = (Vec::new(), Vec::new());
            while ready.len() < CHUNK
                && let Some(incoming) = batch.next()
            {
                match self.prepare(domain, &incoming, &mut needs).await {
                    Ok(prepared) => {
                        // One more stranger in a full queue withdraws others: the next looks at who is left.
                        let crowded = prepared.crowded;
                        ready.push((incoming, prepared));
                        if crowded {
                            break;
                        }
                    }
                    Err(not_now) => {
                        taken.not_now = Some(not_now);
                        break;
                    }
                }
            }
            let now_ms = self.now_ms();
            let mut transaction = self.state.begin(&needs).await?;
            for (incoming, prepared) in ready {
                // What an earlier connection brought was taken meanwhile.
                if let Some(before) = taken_before(transaction.world(), peer, &incoming) {
                    taken.verdicts.push(before);
                    continue;
                }
                let verdict = self.take_one(&mut transaction, (peer, domain), prepared, now_ms);
                transaction.change_peer(peer, |held, writes, _| {
                    held.taken = Some(incoming.position);
                    if let Verdict::Refused(refusal) = &verdict {
                        let failure = Bytes::from(refusal.to_pb().encode_to_vec());
                        writes.refusals.insert((held.id, incoming.n), Some(failure.clone()));
                        held.unseen.insert(incoming.n, failure);
                    }
                });
                taken.verdicts.push(verdict);
            }
            let (commit, more) = transaction.commit();
            last = Some(commit);
            woken.devices.extend(more.devices);
            woken.domains.extend(more.domains);
        }
        if let Some(commit) = last {
            commit.durable().await?;
            self.wake(&woken);
        }
        Ok(taken)
    }

    /// Parses an entry and gets what it needs; the links that it needs and that are not held are asked for.
    async fn prepare(
        &self,
        domain: &Domain,
        incoming: &Incoming,
        needs: &mut Vec<Need>,
    ) -> Result<Prepared, NotNow> {
        let parsed = match &incoming.content {
            Content::Nothing => Parsed::Nothing,
            Content::Refused(refusal) => Parsed::Refused(refusal.clone()),
            Content::Entry(entry) => parse(entry),
        };
        let mut prepared = Prepared { parsed, crowded: false };
        match &mut prepared.parsed {
            Parsed::Transfer(transfer, in_group) => {
                let Ok(lane) = named(transfer.lane.as_ref()) else { return Ok(prepared) };
                *in_group = self.share_group(&transfer.group, lane.key).await;
                self.hold_sender(domain, transfer, lane.key).await?;
                needs.extend(lane_needs(lane.key));
                let oldest = self.queue_room(lane.key.1).await.map_err(not_now)?;
                prepared.crowded = !oldest.is_empty();
                needs.extend(oldest);
            }
            Parsed::Close(pb::LaneClose { lane, .. })
            | Parsed::Notice(pb::Notice { lane, .. })
            | Parsed::Watermark(pb::Watermark { lane, .. }) => {
                if let Ok(lane) = named(lane.as_ref()) {
                    needs.extend(lane_needs(lane.key));
                }
            }
            Parsed::Announced | Parsed::Nothing | Parsed::Refused(_) => {}
        }
        if let Content::Entry(entry) = &incoming.content
            && entry.r#type == CHAIN_ANNOUNCE
        {
            prepared.parsed = self.take_announcement(domain, &entry.body).await?;
        }
        Ok(prepared)
    }

    /// The sender's chain is held up to the head that the message names, or its home is asked.
    async fn hold_sender(
        &self,
        domain: &Domain,
        transfer: &pb::Transfer,
        key: LaneKey,
    ) -> Result<(), NotNow> {
        let head = tidings_proto::id::LinkId::try_from(&transfer.sender_head);
        let needs = [Need::Account(key.0)];
        let held = self.state.view(&needs, |world| {
            let account = world.account(&key.0);
            let known = account.is_some_and(|held| head.as_ref().is_ok_and(|head| held.chain.contains(head)));
            (known, account.map(|held| held.chain.head().to_bytes()).unwrap_or_default())
        });
        let (known, after) = held.await.map_err(not_now)?;
        let Ok(address) = Address::parse(&transfer.sender_address) else { return Ok(()) };
        if known || address.domain() != domain {
            return Ok(());
        }
        self.fetch_chain(
            domain,
            pb::Resolve { address: address.to_string(), account: key.0.to_bytes(), after },
        )
        .await
    }

    /// Asks an account's home for the links after the one named, and keeps them.
    async fn fetch_chain(&self, domain: &Domain, mut request: pb::Resolve) -> Result<(), NotNow> {
        for _ in 0..ROUNDS_MAX {
            let answer = self.federation().map_err(not_now)?.resolve(None, domain, request.clone()).await;
            let answer = match answer {
                Ok(answer) => answer,
                // An answer that says no is final: the entry is refused for what is held.
                Err(refusal) if refusal.retry == pb::Retry::Never => return Ok(()),
                Err(refusal) => return Err(not_now(refusal)),
            };
            match self.learn(domain, &answer.account, &answer.links).await {
                Ok(_) => {}
                Err(refusal) if refusal.retry == pb::Retry::AfterDelay => return Err(not_now(refusal)),
                Err(_) => return Ok(()),
            }
            match answer.links.last() {
                Some(last) if answer.more => {
                    let id =
                        tidings_proto::chain::link_id(tidings_proto::sign::Purpose::ACCOUNT_LINK, &last.body);
                    request.after = id.to_bytes();
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Links of an account at the peer: kept, and told to those here who have accepted it.
    async fn take_announcement(&self, domain: &Domain, body: &Bytes) -> Result<Parsed, NotNow> {
        let refused = |code: Code, why: &str| Ok(Parsed::Refused(code.because(why)));
        let Ok(announce) = pb::ChainAnnounce::decode(body.clone()) else {
            return refused(Code::MESSAGE_MALFORMED, "announcement");
        };
        let Ok(account) = tidings_proto::id::AccountId::try_from(&announce.account) else {
            return refused(Code::MESSAGE_MALFORMED, "account");
        };
        let most = crate::config::Limits::size(self.config.limits.resolve_links_max());
        if announce.links.len() > most {
            return refused(Code::MESSAGE_MALFORMED, "links");
        }
        let needs = [Need::Account(account)];
        let held = self.state.view(&needs, |world| {
            world.account(&account).map(|held| (held.chain.len(), held.chain.head().to_bytes()))
        });
        let (length, after) = held.await.map_err(not_now)?.unwrap_or_default();
        let first = announce.links.first().map(|link| pb::AccountLinkBody::decode(link.body.clone()));
        let first = first.and_then(Result::ok).map_or(0, |body| body.number);
        if first > u64::try_from(length).unwrap_or(u64::MAX) {
            // It begins behind what is held: its home is asked for what lies between.
            let request =
                pb::Resolve { address: announce.address.clone(), account: announce.account.clone(), after };
            self.fetch_chain(domain, request).await?;
        }
        match self.learn(domain, &announce.account, &announce.links).await {
            Ok(before) => {
                let before = before.min(u64::try_from(length).unwrap_or(u64::MAX));
                self.announce_to_contacts(account, before).await.map_err(not_now)?;
                Ok(Parsed::Announced)
            }
            Err(refusal) if refusal.retry == pb::Retry::AfterDelay => Err(not_now(refusal)),
            Err(refusal) => Ok(Parsed::Refused(refusal)),
        }
    }

    fn take_one(
        &self,
        transaction: &mut Transaction<'_>,
        from: (PeerId, &Domain),
        prepared: Prepared,
        now_ms: u64,
    ) -> Verdict {
        match prepared.parsed {
            Parsed::Transfer(transfer, in_group) => {
                self.take_transfer(transaction, from, (&transfer, in_group), now_ms)
            }
            Parsed::Close(close) => self.take_close(transaction, from, &close),
            Parsed::Notice(notice) => verdict(self.take_notice(transaction, from.1, &notice, now_ms)),
            Parsed::Watermark(mark) => verdict(self.take_watermark(transaction, from.1, &mark, now_ms)),
            Parsed::Announced | Parsed::Nothing => Verdict::Accepted,
            Parsed::Refused(refusal) => Verdict::Refused(refusal),
        }
    }

    /// What the recipient's home has to say about numbers of a lane from here.
    fn take_notice(
        &self,
        transaction: &mut Transaction<'_>,
        domain: &Domain,
        told: &pb::Notice,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let malformed = |what: &str| Code::MESSAGE_MALFORMED.because(what);
        let lane = named(told.lane.as_ref())?;
        let numbers = told.numbers.filter(|range| range.from >= 1 && range.from <= range.to);
        let numbers = numbers.ok_or_else(|| malformed("numbers"))?;
        match &told.what {
            Some(pb::notice::What::MissingDevices(missing)) => {
                let ids = missing.devices.iter().chain([&missing.head]);
                if missing.devices.len() > DEVICES_MAX || ids.clone().any(|id| id.len() != 32) {
                    return Err(malformed("missing_devices"));
                }
            }
            Some(pb::notice::What::Closed(closed)) if closed.reason.is_some() => {}
            _ => return Err(malformed("what")),
        }
        if !own_lane(transaction.world(), lane.key, domain)?
            || !current(transaction.world(), &lane.lane, lane.key)
        {
            return Ok(());
        }
        let given = transaction.world().lane(&lane.key).map_or(0, |lane| lane.given);
        if numbers.to > given {
            return Err(Code::LANE_UNKNOWN.because("numbers that were never given"));
        }
        notice::tell(self, transaction, lane.key, &lasting(NOTICE, told), now_ms);
        Ok(())
    }

    /// How far the recipient's home says that a lane from here is delivered or read.
    fn take_watermark(
        &self,
        transaction: &mut Transaction<'_>,
        domain: &Domain,
        told: &pb::Watermark,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let kind = pb::WatermarkKind::try_from(told.kind).unwrap_or_default();
        let lane = named(told.lane.as_ref())?;
        let read = receipt::read(told.upto, &told.except)?;
        let fits = match kind {
            pb::WatermarkKind::Delivered => told.except.is_empty(),
            pb::WatermarkKind::Read => true,
            pb::WatermarkKind::AcceptedByPeer | pb::WatermarkKind::Unspecified => false,
        };
        if !fits || told.upto == 0 {
            return Err(Code::MESSAGE_MALFORMED.because("watermark"));
        }
        if !own_lane(transaction.world(), lane.key, domain)?
            || !current(transaction.world(), &lane.lane, lane.key)
        {
            return Ok(());
        }
        let given = transaction.world().lane(&lane.key).map_or(0, |lane| lane.given);
        if told.upto > given {
            return Err(Code::LANE_UNKNOWN.because("a number that was never given"));
        }
        let merged = transaction.change_lane(lane.key, |held, _| {
            if kind == pb::WatermarkKind::Delivered {
                let moved = told.upto > held.peer_delivered;
                held.peer_delivered = held.peer_delivered.max(told.upto);
                moved.then(|| (told.upto, Vec::new()))
            } else {
                let moved = held.peer_read.merge(&read);
                moved.then(|| (held.peer_read.n(), held.peer_read.except().collect()))
            }
        });
        if let Some((upto, except)) = merged {
            let mark = pb::Watermark { upto, except, at_ms: now_ms, ..told.clone() };
            notice::tell_mark(self, transaction, lane.key, &mark, now_ms);
        }
        Ok(())
    }
}

/// The result of an entry that was taken already.
fn taken_before(world: &World, peer: PeerId, incoming: &Incoming) -> Option<Verdict> {
    let held = world.peer(peer)?;
    let taken = held.taken.filter(|taken| taken.incarnation == incoming.position.incarnation)?;
    if incoming.n > taken.n {
        return None;
    }
    let failure = held.unseen.get(&incoming.n).and_then(|failure| pb::Failure::decode(failure.clone()).ok());
    Some(failure.map_or(Verdict::Accepted, |failure| Verdict::Refused(Refusal::from_pb(&failure))))
}

fn verdict(result: Result<(), Refusal>) -> Verdict {
    result.map_or_else(Verdict::Refused, |()| Verdict::Accepted)
}

fn not_now(reason: Refusal) -> NotNow {
    NotNow { wait: Duration::from_secs(1), reason }
}

fn lane_needs(key: LaneKey) -> [Need; 4] {
    [Need::Account(key.0), Need::Account(key.1), Need::Lane(key), Need::Lane((key.1, key.0))]
}

/// Whether the lane is from an account here to one at that domain.
///
/// # Errors
/// `lane-unknown` if it is not.
fn own_lane(world: &World, key: LaneKey, domain: &Domain) -> Result<bool, Refusal> {
    let recipient = world.account(&key.1).filter(|account| !account.local);
    let there = recipient.is_some_and(|account| account.chain.state().address().domain() == domain);
    if world.local(&key.0).is_none() || !there {
        return Err(Code::LANE_UNKNOWN.because("not a lane from here to that domain"));
    }
    Ok(world.lane(&key).is_some())
}

/// Whether the lane is named in the epoch numbers are given in: what is of an earlier one says nothing now.
fn current(world: &World, lane: &pb::LaneId, key: LaneKey) -> bool {
    let epoch = (lane.address_links, lane.incarnation.clone());
    world.lane(&key).is_some_and(|held| held.given_epoch == epoch)
}

fn parse(entry: &pb::Entry) -> Parsed {
    fn body<M: prost::Message + Default>(entry: &pb::Entry, made: impl FnOnce(M) -> Parsed) -> Parsed {
        match M::decode(entry.body.clone()) {
            Ok(message) => made(message),
            Err(_) => Parsed::Refused(Code::MESSAGE_MALFORMED.because("entry")),
        }
    }
    match entry.r#type {
        TRANSFER => body(entry, |transfer: pb::Transfer| Parsed::Transfer(Box::new(transfer), false)),
        LANE_CLOSE => body(entry, Parsed::Close),
        NOTICE => body(entry, Parsed::Notice),
        WATERMARK => body(entry, Parsed::Watermark),
        CHAIN_ANNOUNCE => Parsed::Announced,
        _ => Parsed::Refused(Code::ENTRY_UNKNOWN.into()),
    }
}
