//! State changes of a peer's task: the table of 9.3 applied, stored, logged and told.

use std::sync::Arc;

use tidings_proto::chain::{Relation, ServerState, Verified, relation};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::ServerId;
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::{Actor, LOOK};
use crate::host::{PeerRecord, PeerStatus, Told};
use crate::net::{Command, handshake};
use crate::peer::{Action, Event, PeerState, step};

pub(super) fn new_record(domain: &Domain, now_ms: u64) -> PeerRecord {
    PeerRecord {
        domain: domain.clone(),
        genesis: None,
        links: Vec::new(),
        state: PeerState::New,
        since_ms: now_ms,
        limits: Vec::new(),
        successor: None,
    }
}

impl Actor {
    /// What the rules say now counts for what was stored before.
    pub(super) async fn begin(&mut self) {
        if self.record.state == PeerState::Up {
            // It was, when the process ended.
            self.apply(Event::Failed, "this home was stopped").await;
            // It may not have noticed, and would wait for its idle time-out before it dials.
            let (now_ms, random) = (self.now_ms(), self.random());
            self.wanted = true;
            self.backoff.asked(now_ms, 0, self.shared.settings.reconnect_base_ms.saturating_mul(10), random);
        }
        self.on_rules().await;
        self.look().await;
    }

    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::Connected(proven) => self.connected(*proven).await,
            Command::Ask(request, reply) => self.ask(request, reply),
            Command::Verify => {
                if self.session.is_none() {
                    self.wanted = true;
                    let (now_ms, random) = (self.now_ms(), self.random());
                    self.backoff.soon(now_ms, random);
                }
            }
            Command::Retry => {
                self.backoff.reset();
                self.wanted = self.session.is_none();
                tracing::info!(domain = %self.domain, "the operator wants this peer dialled now");
            }
            Command::AcceptReplacement => {
                self.apply(Event::Accepted, "the operator accepted the new chain").await
            }
            Command::Forget => self.apply(Event::Forgotten, "the operator forgot this peer").await,
            Command::Status(reply) => {
                let status = self.status().await;
                let _gone = reply.send(status);
            }
        }
    }

    pub(super) async fn on_appended(&mut self) {
        let now_ms = self.now_ms();
        match step(self.record.state, Event::Appended) {
            (PeerState::Gone, _) => {
                // It may come back; it is tried at the slowest pace.
                self.wanted = self.session.is_none();
                if self.backoff.next_ms() <= now_ms {
                    let (max, random) = (self.shared.settings.reconnect_max_ms, self.random());
                    self.dial_if_due();
                    self.backoff.asked(now_ms, max, 0, random);
                }
            }
            (PeerState::Replaced, _) => {}
            _ => {
                if let Some(link) = &mut self.link {
                    link.appended();
                }
                if self.session.is_none() {
                    self.owed = true;
                    self.oldest_ms.get_or_insert(now_ms);
                    if !self.stored {
                        self.store().await;
                    }
                }
            }
        }
    }

    pub(super) async fn on_rules(&mut self) {
        if !self.shared.policy.allows(&self.domain) {
            self.refuse_waiting(&Refusal::new(Code::NOT_PERMITTED, "this home does not talk to that domain"));
            if self.stored {
                self.apply(Event::Denied, "the rules deny this domain").await;
            }
        }
    }

    pub(super) async fn on_time(&mut self) {
        let since = self.now_ms().saturating_sub(self.looked_ms);
        if u128::from(since) >= LOOK.as_millis() {
            self.look().await;
        }
    }

    /// Looks at what only time changes: the age of the outbox, of a replacement.
    async fn look(&mut self) {
        let now_ms = self.now_ms();
        self.looked_ms = now_ms;
        let age_max_ms = self.shared.settings.outbox_age_max_secs.saturating_mul(1000);
        if self.session.is_none() && matches!(self.record.state, PeerState::New | PeerState::Unreachable) {
            let shared = Arc::clone(&self.shared);
            let oldest_ms = match self.record.genesis {
                Some(genesis) => {
                    shared.stored(|host| host.outbox(&genesis)).await.and_then(|outbox| outbox.oldest_ms)
                }
                None => self.oldest_ms,
            };
            if oldest_ms.is_some_and(|oldest| now_ms.saturating_sub(oldest) > age_max_ms) {
                self.apply(Event::TooOld, "nothing came through for too long").await;
            }
        }
        let served = self.record.successor.map(|(_, since_ms)| now_ms.saturating_sub(since_ms));
        if self.record.state == PeerState::Replaced && served.is_some_and(|served| served > age_max_ms) {
            self.apply(Event::Accepted, "the new chain was served long enough").await;
        }
    }

    /// A dial failed, or the connection is gone.
    pub(super) async fn failed(&mut self, error: String) {
        let (now_ms, random) = (self.now_ms(), self.random());
        self.backoff.failed(now_ms, random);
        let wait_ms = self.backoff.next_ms().saturating_sub(now_ms);
        if self.record.state == PeerState::Up {
            self.apply(Event::Failed, &error).await;
        } else {
            tracing::info!(
                domain = %self.domain,
                state = %self.record.state,
                failures = self.backoff.failures(),
                next_attempt_ms = wait_ms,
                error,
                "peer cannot be reached"
            );
        }
        self.last_error = Some(error);
        self.look().await;
    }

    /// The chain, links and limits of a connection that was proven for the record, or the first ones.
    pub(super) async fn learn(
        &mut self,
        genesis: ServerId,
        links: Vec<pb::Link>,
        limits: Option<Vec<pb::Limit>>,
    ) {
        if self.record.genesis.is_some_and(|held| held != genesis) {
            self.other_genesis(genesis, links, limits).await;
            return;
        }
        let before = self.record.clone();
        self.record.genesis = Some(genesis);
        let held = Verified::<ServerState>::verify(&self.record.links).ok();
        let grown = Verified::<ServerState>::verify(&links).is_ok_and(|chain| {
            chain.server_id() == genesis
                && held.is_none_or(|held| relation(&chain, &held) == Relation::Extends)
        });
        if grown {
            self.record.links = links;
        }
        self.record.limits = limits.unwrap_or_else(|| std::mem::take(&mut self.record.limits));
        if self.record != before || !self.stored {
            self.store().await;
        }
    }

    /// The domain shows another chain under its certificate.
    pub(super) async fn other_genesis(
        &mut self,
        genesis: ServerId,
        links: Vec<pb::Link>,
        limits: Option<Vec<pb::Limit>>,
    ) {
        let same = self.record.successor.is_some_and(|(held, _)| held == genesis);
        if !same {
            self.record.successor = Some((genesis, self.now_ms()));
            self.replacement = Some((genesis, links, limits.unwrap_or_default()));
        }
        self.apply(Event::OtherGenesis, "the domain shows another server chain").await;
        self.store().await;
        let (now_ms, random) = (self.now_ms(), self.random());
        self.backoff.failed(now_ms, random);
        self.refuse_waiting(&Code::PEER_REPLACED.into());
    }

    /// The table of 9.3.
    pub(super) async fn apply(&mut self, event: Event, reason: &str) {
        let before = self.record.state;
        let (after, actions) = step(before, event);
        if before != after {
            self.record.state = after;
            self.record.since_ms = self.now_ms();
            self.store().await;
        }
        for action in actions {
            Box::pin(self.act(*action)).await;
        }
        if before != after {
            self.tell_change(before, reason).await;
        }
    }

    async fn act(&mut self, action: Action) {
        let shared = Arc::clone(&self.shared);
        match action {
            Action::CloseOutbox(code) => {
                self.owed = false;
                self.oldest_ms = None;
                let key = self.record.key();
                while self.orders.join_next().await.is_some() {}
                self.link = None;
                shared.stored(|host| host.outbox_close(&key, code)).await;
            }
            Action::CloseConnection(code) => {
                if code != Code::WRONG_SERVER
                    && let Some(session) = &self.session
                {
                    handshake::close(&session.connection, &code.into());
                    self.drop_session(true);
                }
            }
            Action::FreshOutbox => {
                while self.orders.join_next().await.is_some() {}
                self.link = None;
                if let Some(genesis) = self.record.genesis {
                    let told = Told { taken: None, refusals: Vec::new() };
                    shared.stored(|host| host.outbox_restart(&genesis, told.clone())).await;
                }
            }
            Action::FreshRecord => self.replace_record().await,
            // The rest is done where the event comes from.
            Action::Resume
            | Action::BackOff
            | Action::NoteGenesis
            | Action::Dial
            | Action::Ship
            | Action::Refuse(_) => {}
        }
    }

    /// The old record stays as it is in the store; the domain has a new one.
    async fn replace_record(&mut self) {
        let Some((genesis, _)) = self.record.successor else { return };
        self.link = None;
        self.record = new_record(&self.domain, self.now_ms());
        match self.replacement.take() {
            Some((held, links, limits)) if held == genesis => {
                self.record.genesis = Some(genesis);
                (self.record.links, self.record.limits) = (links, limits);
            }
            // After a restart of this home: the next dial, authenticated for the domain, brings the chain.
            _ => {}
        }
        self.backoff.reset();
        self.store().await;
    }

    pub(super) async fn store(&mut self) {
        self.stored = true;
        let shared = Arc::clone(&self.shared);
        shared.set_record(self.record.clone());
        shared.stored(|host| host.put_peer(self.record.clone())).await;
    }

    async fn tell_change(&self, before: PeerState, reason: &str) {
        let status = self.status().await;
        let wait_ms = status.next_attempt_ms.map(|next| next.saturating_sub(self.now_ms()));
        tracing::info!(
            domain = %self.domain,
            from = %before,
            to = %self.record.state,
            reason,
            next_attempt_ms = wait_ms,
            "peer changed its state"
        );
        self.shared.host.peer_changed(&status);
    }

    async fn status(&self) -> PeerStatus {
        let queued = match (&self.link, self.record.genesis) {
            (Some(link), _) => link.queued(),
            (None, Some(genesis)) => {
                let outbox = self.shared.host.outbox(&genesis).await.ok();
                outbox.map_or(0, |outbox| outbox.last.saturating_sub(outbox.done))
            }
            (None, None) => u64::from(self.owed),
        };
        PeerStatus {
            domain: self.domain.clone(),
            genesis: self.record.genesis,
            state: self.record.state,
            since_ms: self.record.since_ms,
            last_error: self.last_error.clone(),
            next_attempt_ms: self.may_dial().then(|| self.backoff.next_ms()),
            queued,
        }
    }

    /// Requests that were waiting are told why they wait no longer.
    fn refuse_waiting(&mut self, refusal: &Refusal) {
        for (_, reply) in self.waiting.drain(..) {
            let _given_up = reply.send(Err(refusal.clone()));
        }
    }
}
