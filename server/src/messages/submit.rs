//! Submissions of a device: decided once, answered the same way for ever (06-messages, 6.2).
//!
//! The outcome, the lane number, the own copies, and the recipient's mailbox entries or the outbox entry are one
//! decision; the answer leaves after it is durable.

use bytes::Bytes;
use prost::Message as _;
use tidings_federation::peer::PeerState;
use tidings_proto::id::{AccountId, DeviceId, Hash};
use tidings_proto::limits;
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::sha256;

use super::arrival::{account_id, lane_id};
use super::rules::{self, Stored, Turn};
use super::{Arrival, Checked, TRANSFER, consent, entry};
use crate::accounts::heads;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Need, New, Transaction, World, both_ways};

/// A submission as it came.
#[derive(Debug)]
pub struct Submission {
    /// The account it comes from.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// SHA-256 of the payload is what a resubmission is recognised by.
    pub digest: Hash,
    /// The request.
    pub request: pb::Submit,
    /// An earlier one on this pipeline was answered "later" and did not come again yet.
    pub behind: bool,
}

impl Submission {
    /// From the frame's payload.
    #[must_use]
    pub fn new(
        account: AccountId,
        device: DeviceId,
        payload: &[u8],
        request: pb::Submit,
        behind: bool,
    ) -> Self {
        Self { account, device, digest: sha256(payload), request, behind }
    }
}

/// The form of a submission, checked without looking at anybody.
struct Form {
    class: pb::Class,
    recipient: AccountId,
    address: Address,
    /// Judged after the sizes.
    lifetime_ms: Result<u64, Refusal>,
}

/// What one decision works with.
struct Decision<'a> {
    shared: &'a Shared,
    submission: &'a Submission,
    form: Form,
    /// A service message that names a group both accounts are in.
    in_group: bool,
    now_ms: u64,
}

/// What passed all checks.
struct Passed {
    lane: pb::LaneId,
    number: u64,
    lifetime_ms: u64,
    target: Target,
}

/// Where the payloads go.
enum Target {
    /// To an account here.
    Here(Checked),
    /// To a peer.
    Away,
    /// Nowhere: there are copies for the sender's own devices alone.
    OwnDevices,
}

impl Shared {
    /// Decides a submission; gives the encoded `Outcome`.
    ///
    /// # Errors
    /// A refusal that consumes nothing: about the counter, or to be tried later.
    pub async fn submit(&self, submission: Submission) -> Result<Bytes, Refusal> {
        let form = self.form(&submission);
        let mut needs = vec![Need::Account(submission.account)];
        let mut in_group = false;
        if let Ok(form) = &form {
            let key = (submission.account, form.recipient);
            in_group =
                form.class == pb::Class::Service && self.share_group(&submission.request.group, key).await;
            needs.push(Need::Account(form.recipient));
            needs.extend(both_ways((submission.account, form.recipient)));
            if *form.address.domain() == self.config.domain {
                needs.extend(self.queue_room(form.recipient).await?);
            }
        }
        let (counter, digest) = (submission.request.counter, submission.digest);
        let decided = {
            let mut transaction = self.state.begin(&needs).await?;
            let device = transaction.world().device(&submission.device).ok_or(Code::AUTH_REMOVED)?;
            let last = device.row.counter;
            let stored = device.outcomes.get(&counter).cloned();
            if counter > 0 && counter <= last && stored.is_none() {
                Err(last)
            } else {
                let outcome = match rules::turn(last, counter, &digest, stored, submission.behind)? {
                    Turn::Known(outcome) => outcome,
                    Turn::New => {
                        let result = form.and_then(|form| {
                            let now_ms = self.now_ms();
                            Decision { shared: self, submission: &submission, form, in_group, now_ms }
                                .decide(&mut transaction)
                        });
                        self.record(&mut transaction, &submission, result)?
                    }
                };
                Ok((outcome, transaction.commit()))
            }
        };
        match decided {
            Ok((outcome, (commit, woken))) => {
                commit.durable().await?;
                self.wake(&woken);
                Ok(outcome)
            }
            Err(last) => self.outcome_again(&submission, last).await,
        }
    }

    /// An outcome that is in the store alone.
    pub(crate) async fn outcome_again(&self, submission: &Submission, last: u64) -> Result<Bytes, Refusal> {
        let counter = submission.request.counter;
        let stored = self.state.store().outcome(submission.device, counter).await;
        let stored = stored.map_err(|error| crate::state::unreadable(&error))?;
        let stored = stored.map(|row| Stored { digest: row.digest, outcome: row.outcome });
        match rules::turn(last, counter, &submission.digest, stored, submission.behind)? {
            Turn::Known(outcome) => Ok(outcome),
            Turn::New => Err(Code::INTERNAL.because("a consumed counter is new")),
        }
    }

    /// Form, sizes and lifetime: the first rows of 6.2.1.
    fn form(&self, submission: &Submission) -> Result<Form, Refusal> {
        let (limits, request) = (&self.config.limits, &submission.request);
        let malformed = |what: &str| Code::MESSAGE_MALFORMED.because(what);
        let class = rules::class(request)?;
        let recipient = account_id(&request.to_account, "to_account")?;
        let address = Address::parse(&request.to_address).map_err(|_| malformed("to_address"))?;
        for (field, length) in [(&request.to_head, 32), (&request.own_head, 32), (&request.commitment, 32)] {
            if field.len() != length {
                return Err(malformed("a head or the commitment"));
            }
        }
        let marks = [
            request.supplements > 0,
            request.supplements_epoch_links > 0,
            !request.supplements_incarnation.is_empty(),
        ];
        if marks.iter().any(|mark| *mark != marks[0]) {
            return Err(malformed("a supplement names number and epoch"));
        }
        rules::devices_of(&request.payloads)?;
        let own = rules::devices_of(&request.own_payloads)?;
        let nothing = request.payloads.is_empty() && own.is_empty();
        if nothing && (class == pb::Class::Service || request.supplements > 0) {
            return Err(malformed("no payload"));
        }
        if recipient == submission.account || own.contains(&submission.device) {
            return Err(malformed("a message to oneself"));
        }
        let own_max = limits.devices_max().saturating_sub(1);
        rules::numbers(&request.payloads, limits.devices_max())?;
        rules::numbers(&request.own_payloads, own_max)?;
        rules::sizes(&request.payloads, limits.ciphertext_bytes_max())?;
        rules::sizes(&request.own_payloads, limits.ciphertext_bytes_max())?;
        let lifetime_ms = rules::lifetime_ms(
            request.lifetime_secs,
            limits.lifetime_default_secs(),
            limits.lifetime_max_secs(),
        );
        Ok(Form { class, recipient, address, lifetime_ms })
    }

    /// Stores the outcome with the effects. A refusal that may succeed later consumes nothing.
    pub(crate) fn record(
        &self,
        transaction: &mut Transaction<'_>,
        submission: &Submission,
        result: Result<pb::Accepted, Refusal>,
    ) -> Result<Bytes, Refusal> {
        let result = match result {
            Ok(accepted) => pb::outcome::Result::Accepted(accepted),
            Err(refusal) if refusal.code.retry() == pb::Retry::AfterDelay => return Err(refusal),
            Err(refusal) => pb::outcome::Result::Refused(refusal.to_pb()),
        };
        if let pb::outcome::Result::Refused(failure) = &result
            && failure.code == Code::MAILBOX_FULL.0
            && let Ok(recipient) = account_id(&submission.request.to_account, "to_account")
        {
            transaction.lapse_full_of(&recipient, &submission.request.payloads);
        }
        let counter = submission.request.counter;
        let outcome = Bytes::from(pb::Outcome { counter, result: Some(result) }.encode_to_vec());
        let kept = self.config.limits.outcomes_kept();
        transaction.consume(submission.device, counter, (submission.digest, outcome.clone()), kept);
        Ok(outcome)
    }
}

impl Decision<'_> {
    /// All checks come before the first change.
    fn decide(&self, transaction: &mut Transaction<'_>) -> Result<pb::Accepted, Refusal> {
        let passed = self.check(transaction.world())?;
        let world = transaction.world();
        let sender = world.account(&self.submission.account).ok_or(Code::AUTH_REMOVED)?;
        let sender_address = sender.chain.state().address().to_string();
        let sender_head = sender.chain.head().to_bytes();
        let expires_at_ms = self.now_ms.saturating_add(passed.lifetime_ms);
        let request = &self.submission.request;
        let supplement = request.supplements > 0;
        self.number(transaction, &passed);
        if self.form.class == pb::Class::Content
            && !transaction.world().relation(self.submission.account, self.form.recipient).accepted
        {
            // Who writes to somebody accepts their answers.
            let back = (self.form.recipient, self.submission.account);
            consent::release(self.shared, transaction, back, self.now_ms);
        }
        let arrival = Arrival {
            key: (self.submission.account, self.form.recipient),
            lane: &passed.lane,
            number: passed.number,
            class: self.form.class,
            shipped: false,
            supplement,
            sender_address: &sender_address,
            recipient_address: &request.to_address,
            sender_device: self.submission.device.to_bytes(),
            sender_head,
            to_head: &request.to_head,
            payloads: &request.payloads,
            commitment: &request.commitment,
            franking_tag: self.franking_tag(passed.number),
            group: request.group.clone(),
            in_group: self.in_group,
            accepted_at_ms: self.now_ms,
            expires_at_ms,
        };
        match &passed.target {
            Target::Here(checked) => arrival.dispose(self.shared, transaction, checked, self.now_ms),
            Target::Away => self.send_away(transaction, &arrival),
            Target::OwnDevices => {}
        }
        for payload in &request.own_payloads {
            if let Ok(device) = DeviceId::try_from(&payload.device)
                && arrival.deliver(transaction, device, payload, (false, true))
                && passed.number > 0
                && !supplement
            {
                let listed = transaction.world().devices_of_both(&arrival.key);
                transaction
                    .change_lane(arrival.key, |lane, _| lane.note_placed(device, passed.number, &listed));
            }
        }
        Ok(pb::Accepted {
            lane: Some(passed.lane),
            number: passed.number,
            accepted_at_ms: self.now_ms,
            expires_at_ms,
            local: *self.form.address.domain() == self.shared.config.domain,
            ..Default::default()
        })
    }

    /// The rows of 6.2.1 that look at somebody, in their order.
    fn check(&self, world: &World) -> Result<Passed, Refusal> {
        let request = &self.submission.request;
        let key = (self.submission.account, self.form.recipient);
        let local = *self.form.address.domain() == self.shared.config.domain;
        if !local {
            self.check_room(world)?;
        }
        if !local {
            self.check_size(world)?;
        }
        let lifetime_ms = self.form.lifetime_ms.clone()?;
        self.check_own(world)?;
        let relation = world.relation(key.0, key.1);
        if self.form.class == pb::Class::Content && relation.blocked {
            return Err(Code::NOT_PERMITTED.because("the recipient is blocked"));
        }
        if !local {
            self.check_peer(world)?;
        }
        let lane = lane_id(self.shared, world, key);
        let number = self.next_number(world, &lane);
        // A supplement or service message can be for own devices alone.
        let target = if request.payloads.is_empty()
            && (request.supplements > 0 || self.form.class == pb::Class::Service)
        {
            Target::OwnDevices
        } else if local {
            let arrival = Arrival {
                key,
                lane: &lane,
                number: 0,
                class: self.form.class,
                shipped: false,
                supplement: request.supplements > 0,
                sender_address: "",
                recipient_address: "",
                sender_device: Bytes::new(),
                sender_head: Bytes::new(),
                to_head: &request.to_head,
                payloads: &request.payloads,
                commitment: &request.commitment,
                franking_tag: Bytes::new(),
                group: Bytes::new(),
                in_group: false,
                accepted_at_ms: 0,
                expires_at_ms: 0,
            };
            Target::Here(arrival.check(world, &self.form.address)?)
        } else {
            Target::Away
        };
        let number = number?;
        if let Target::Here(checked) = &target {
            checked.room()?;
        }
        Ok(Passed { number, lifetime_ms, lane, target })
    }

    /// Copies for the sender's other devices fit the head named.
    fn check_own(&self, world: &World) -> Result<(), Refusal> {
        let request = &self.submission.request;
        let sender = world.local(&self.submission.account).ok_or(Code::AUTH_REMOVED)?;
        let head = sender.chain.head().to_bytes();
        let then = heads::devices_at(sender, &request.own_head);
        let mut then = then.ok_or_else(|| Code::UNKNOWN_HEAD.because("own_head").with_head(head.clone()))?;
        then.remove(&self.submission.device);
        let own = rules::devices_of(&request.own_payloads)?;
        if request.supplements > 0 || self.form.class == pb::Class::Service {
            if own.is_empty() { Ok(()) } else { rules::some_devices(&own, &then, head) }
        } else {
            rules::exact_devices(&own, &then, &world.devices_without_keys(&self.submission.account), head)
        }
    }

    /// The outbox takes one more of this account.
    fn check_room(&self, world: &World) -> Result<(), Refusal> {
        let limits = &self.shared.config.limits;
        let domain = self.form.address.domain();
        let Some(peer) = world.peer_of(domain) else {
            // One new domain too many, perhaps (LIM-010).
            if self.in_group {
                return Ok(());
            }
            let federation = self.shared.federation();
            return federation
                .map_or(Ok(()), |federation| federation.admits(domain, self.submission.account));
        };
        let share = peer.shares.get(&self.submission.account).copied().unwrap_or(0);
        if peer.queued() >= limits.outbox_entries_max() || share >= limits.outbox_account_share() {
            return Err(Code::OUTBOX_FULL.into());
        }
        Ok(())
    }

    /// The encoded transfer fits a frame of the peer as it last advertised.
    fn check_size(&self, world: &World) -> Result<(), Refusal> {
        let request = &self.submission.request;
        let bytes: usize = request.payloads.iter().map(prost::Message::encoded_len).sum();
        // Everything else in a Transfer and its frames is below 2 KiB.
        let whole = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(2048);
        let peer = world.peer_of(self.form.address.domain());
        let told = peer
            .and_then(|peer| peer.record.limits.iter().find(|limit| limit.id == limits::id::FRAME_BYTES_MAX));
        let most = told.map_or(limits::FRAME_BYTES_MAX, |limit| limit.value);
        if whole > most { Err(Code::TOO_LARGE.because("for a frame between servers")) } else { Ok(()) }
    }

    fn check_peer(&self, world: &World) -> Result<(), Refusal> {
        if !self.shared.may_talk_to(self.form.address.domain()) {
            return Err(Code::NOT_PERMITTED.because("that domain is denied here"));
        }
        match world.peer_of(self.form.address.domain()).map(|peer| peer.record.state) {
            Some(PeerState::Replaced) => Err(Code::PEER_REPLACED.into()),
            Some(PeerState::Gone) => Err(Code::PEER_GONE.into()),
            _ => Ok(()),
        }
    }

    /// The lane's next number; that of the message completed; none for service messages.
    fn next_number(&self, world: &World, lane: &pb::LaneId) -> Result<u64, Refusal> {
        let request = &self.submission.request;
        let epoch = (lane.address_links, lane.incarnation.clone());
        let held = world.lane(&(self.submission.account, self.form.recipient));
        let given = held.filter(|held| held.given_epoch == epoch).map_or(0, |held| held.given);
        if request.supplements > 0 {
            let named = (request.supplements_epoch_links, request.supplements_incarnation.clone());
            if named != epoch || request.supplements > given {
                return Err(Code::LANE_UNKNOWN.into());
            }
            return Ok(request.supplements);
        }
        Ok(if self.form.class == pb::Class::Service { 0 } else { given.saturating_add(1) })
    }

    /// Gives the number.
    fn number(&self, transaction: &mut Transaction<'_>, passed: &Passed) {
        if passed.number == 0 || self.submission.request.supplements > 0 {
            return;
        }
        let epoch = (passed.lane.address_links, passed.lane.incarnation.clone());
        transaction.change_lane((self.submission.account, self.form.recipient), |lane, _| {
            if lane.given_epoch != epoch {
                lane.given_epoch = epoch;
                lane.placed.clear();
                lane.peer_delivered = 0;
                lane.peer_read = tidings_proto::watermark::Read::default();
            }
            lane.given = passed.number;
        });
    }

    fn franking_tag(&self, number: u64) -> Bytes {
        let commitment = &self.submission.request.commitment;
        self.shared.franking.tag(
            commitment,
            &self.submission.device,
            &self.form.recipient,
            number,
            self.now_ms,
        )
    }

    fn send_away(&self, transaction: &mut Transaction<'_>, arrival: &Arrival<'_>) {
        let transfer = pb::Transfer {
            lane: Some(arrival.lane.clone()),
            number: arrival.number,
            class: arrival.class.into(),
            sender_address: arrival.sender_address.to_owned(),
            sender_device: arrival.sender_device.clone(),
            sender_head: arrival.sender_head.clone(),
            recipient_address: self.form.address.to_string(),
            to_head: arrival.to_head.clone(),
            payloads: arrival.payloads.to_vec(),
            commitment: arrival.commitment.clone(),
            franking_tag: arrival.franking_tag.clone(),
            accepted_at_ms: arrival.accepted_at_ms,
            expires_at_ms: arrival.expires_at_ms,
            supplement: arrival.supplement,
            group: arrival.group.clone(),
        };
        let domain = self.form.address.domain();
        let peer = transaction.peer_for(domain, self.shared.fresh_incarnation(), self.now_ms);
        let number = if arrival.supplement { 0 } else { arrival.number };
        transaction.change_peer(peer, |peer, _, _| peer.wait(arrival.key, number, self.now_ms));
        let new = New {
            entry: entry(TRANSFER, &transfer),
            expires_at_ms: arrival.expires_at_ms,
            aux: self.now_ms,
            ..New::default()
        };
        transaction.ship(peer, new);
        transaction.hand(arrival.key.0, domain, self.now_ms);
    }
}
