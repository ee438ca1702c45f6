//! Connections of a peer's task: dialling, taking over, ending, leaving.

use std::sync::Arc;

use tidings_proto::error::{Code, Refusal};
use tidings_proto::pb;

use super::{Actor, DRAIN_MS, Reply};
use crate::host::PeerRecord;
use crate::link::{Link, PeerLimits};
use crate::net::handshake::{self, DialError, Proven};
use crate::net::remote;
use crate::net::session::{Session, SessionEvent};
use crate::peer::{Event, PeerState, newer_stays};
use tidings_proto::frame::RawFrame;
use tidings_proto::limits;

/// A limit of the peer's newest Welcome, or the default.
fn limit(record: &PeerRecord, id: u32, default: usize) -> usize {
    let told = record.limits.iter().find(|limit| limit.id == id).map(|limit| limit.value);
    told.and_then(|value| usize::try_from(value).ok()).unwrap_or(default)
}

fn peer_limits(record: &PeerRecord) -> PeerLimits {
    let of = |id, default| limit(record, id, default);
    let default = PeerLimits::default();
    PeerLimits {
        frame_bytes: of(limits::id::FRAME_BYTES_MAX, default.frame_bytes),
        window_entries: of(limits::id::LINK_WINDOW_ENTRIES, default.window_entries).max(1),
    }
}

/// What a dial without a pin found counts only if it is another chain: a fork of the one on record is refused.
fn another(
    held: Option<tidings_proto::id::ServerId>,
    dialled: Result<Proven, DialError>,
) -> Result<Proven, DialError> {
    let forked = || Refusal::new(Code::WRONG_SERVER, "the chain does not extend the one on record");
    match dialled {
        Ok(proven) if Some(proven.genesis) == held => {
            handshake::close(&proven.connection, &forked());
            Err(DialError::Refused(forked(), None))
        }
        Err(DialError::Refused(refusal, Some(learnt))) if Some(learnt.genesis) == held => {
            Err(DialError::Refused(refusal, None))
        }
        other => other,
    }
}

impl Actor {
    /// Whether there is a reason to dial and nothing but the back-off against it.
    pub(super) fn may_dial(&self) -> bool {
        let queued = self.owed || self.link.as_ref().is_some_and(|link| link.queued() > 0);
        // What is owed to a peer that was replaced or is gone was closed; it is dialled only when asked to.
        let owed = queued && matches!(self.record.state, PeerState::New | PeerState::Unreachable);
        self.session.is_none()
            && self.shared.policy.allows(&self.domain)
            && (owed || self.wanted || !self.waiting.is_empty())
    }

    pub(super) fn dial_if_due(&mut self) {
        if !self.dials.is_empty() || !self.may_dial() || self.backoff.next_ms() > self.now_ms() {
            return;
        }
        self.wanted = false;
        let (shared, domain) = (Arc::clone(&self.shared), self.domain.clone());
        let record = self.record.genesis.is_some().then(|| self.record.clone());
        let (refreshing, known) = (Arc::clone(&shared), domain.clone());
        self.side.spawn(async move {
            refreshing.discovery.refresh_if_due(&known, refreshing.host.now_ms()).await;
            None
        });
        self.dials.spawn(async move {
            let now_ms = shared.host.now_ms();
            let target = shared.discovery.find(&domain, now_ms).await.map_err(DialError::LookUp)?;
            let dialled = Box::pin(handshake::dial(&shared, &domain, &target, record.as_ref())).await;
            match dialled {
                // The domain shows another chain than the one on record: see which.
                Err(DialError::Refused(refusal, _))
                    if refusal.code == Code::WRONG_SERVER && refusal.links.is_empty() && record.is_some() =>
                {
                    let held = record.and_then(|record| record.genesis);
                    another(held, Box::pin(handshake::dial(&shared, &domain, &target, None)).await)
                }
                other => other,
            }
        });
    }

    pub(super) async fn on_dialled(&mut self, dialled: Result<Proven, DialError>) {
        match dialled {
            Ok(proven) => self.connected(proven).await,
            Err(error) => {
                if let DialError::Refused(_, Some(learnt)) = &error {
                    self.learn(learnt.genesis, learnt.links.clone(), Some(learnt.limits.clone())).await;
                }
                self.fail_waiting(&error);
                if let DialError::Refused(refusal, _) = &error
                    && refusal.code == Code::PEER_UNVERIFIED
                {
                    let delay =
                        refusal.retry_after.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(0));
                    let random = self.random();
                    self.backoff.failed(self.now_ms().saturating_add(delay), random);
                    self.last_error =
                        Some("the peer looks this home up before it takes a connection".to_owned());
                    tracing::info!(domain = %self.domain, "first contact: the peer looks this home up now");
                    return;
                }
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(inner) = source {
                    text = format!("{text}: {inner}");
                    source = inner.source();
                }
                self.failed(text).await;
            }
        }
    }

    fn fail_waiting(&mut self, error: &DialError) {
        let (code, detail) = match error {
            DialError::LookUp(_) => (Code::PEER_UNKNOWN, "not found"),
            DialError::Refused(refusal, _) if refusal.code == Code::PEER_DENIED => {
                (Code::NOT_PERMITTED, "the peer does not talk to this home")
            }
            // It dials back in a moment: requests wait for that, within their deadline.
            DialError::Refused(refusal, _) if refusal.code == Code::PEER_UNVERIFIED => return,
            _ => (Code::PEER_UNREACHABLE, "no connection"),
        };
        for (_, reply) in self.waiting.drain(..) {
            let _given_up = reply.send(Err(Refusal::new(code, detail)));
        }
    }

    /// A connection is proven; whether it stays is decided here.
    pub(super) async fn connected(&mut self, proven: Proven) {
        if !self.shared.policy.allows(&self.domain) {
            handshake::close(&proven.connection, &Code::PEER_DENIED.into());
            return;
        }
        let by_us = proven.opened.by_us;
        if self.record.genesis.is_some_and(|genesis| genesis != proven.genesis) {
            handshake::close(&proven.connection, &Code::WRONG_SERVER.into());
            // Only a connection that this home dialled was authenticated for the domain.
            if by_us {
                self.other_genesis(proven.genesis, proven.links, proven.limits).await;
            }
            return;
        }
        if let Some(session) = &self.session {
            let own = self.shared.host.identity();
            let within_ms = self.shared.settings.handshake_ms;
            if !newer_stays(&session.opened, &proven.opened, own.domain(), &self.domain, within_ms) {
                handshake::close(&proven.connection, &Code::TAKEN_OVER.into());
                return;
            }
            handshake::close(&session.connection, &Code::TAKEN_OVER.into());
            self.drop_session(true);
        }
        self.learn(proven.genesis, proven.links.clone(), proven.limits.clone()).await;
        self.apply(Event::Proven, "connected").await;
        self.backoff.reset();
        self.last_error = None;
        if !self.ensure_link(proven.genesis).await {
            return;
        }
        let mut proven = proven;
        if !by_us {
            handshake::tell(&mut proven.control.0, &pb::Ready::default()).await;
        }
        let peer = peer_limits(&self.record);
        if let Some(link) = &mut self.link {
            link.connected(peer);
        }
        self.owed = false;
        self.oldest_ms = None;
        let own = self.shared.settings.pipelines_max;
        let pipelines = limit(&self.record, limits::id::PIPELINES_MAX, own);
        self.session = Some(Session::start(&self.shared, &self.domain, proven, pipelines));
        for (request, reply) in std::mem::take(&mut self.waiting) {
            self.ask(request, reply);
        }
    }

    /// Makes the link from what is stored, when no order of an older one is open.
    async fn ensure_link(&mut self, genesis: tidings_proto::id::ServerId) -> bool {
        if self.link.is_some() {
            return true;
        }
        while self.orders.join_next().await.is_some() {}
        let shared = Arc::clone(&self.shared);
        let Some(outbox) = shared.stored(|host| host.outbox(&genesis)).await else { return false };
        let Some(inbox) = shared.stored(|host| host.inbox(&genesis)).await else { return false };
        self.link = Some(Link::new(outbox, inbox, self.shared.settings.link));
        true
    }

    pub(super) fn ask(&mut self, request: RawFrame, reply: Reply) {
        match &self.session {
            // One that is gone may not have been heard of yet.
            Some(session) if !session.leaving && session.connection.close_reason().is_none() => {
                let (connection, places) = (session.connection.clone(), session.places_of(request.kind));
                let frame_bytes = self.shared.settings.frame_bytes;
                let deadline = std::time::Duration::from_millis(self.shared.settings.request_deadline_ms);
                self.side.spawn(async move {
                    let asking = remote::ask(connection.clone(), places, request.clone(), frame_bytes);
                    let late = Err(Refusal::from(Code::TIMED_OUT));
                    let answer = tokio::time::timeout(deadline, asking).await.unwrap_or(late);
                    if answer.is_err() && connection.close_reason().is_some() && !reply.is_closed() {
                        // Taken over or broken with the request in flight: it asks for nothing but an answer.
                        return Some((request, reply));
                    }
                    let _given_up = reply.send(answer);
                    None
                });
            }
            _ => {
                let until = self.now_ms().saturating_add(self.shared.settings.request_deadline_ms);
                self.waiting.retain(|(_, reply)| !reply.is_closed());
                let refused = if self.waiting.len() >= super::WAITING_MAX {
                    Some(Code::TOO_FAST)
                } else if self.backoff.next_ms() > until {
                    Some(Code::PEER_UNREACHABLE)
                } else {
                    None
                };
                match refused {
                    Some(code) => drop(reply.send(Err(code.into()))),
                    None => self.waiting.push((request, reply)),
                }
            }
        }
    }

    pub(super) async fn on_session(&mut self, event: Option<SessionEvent>) {
        match event {
            Some(SessionEvent::GoAway(away)) => {
                let random = self.random();
                let now_ms = self.now_ms();
                self.backoff.asked(now_ms, away.reconnect_after_ms.into(), away.jitter_ms.into(), random);
                let drain_ms = DRAIN_MS.saturating_add(self.shared.settings.request_deadline_ms);
                self.drain_until_ms = Some(now_ms.saturating_add(drain_ms));
                if let Some(session) = &mut self.session {
                    session.leaving = true;
                }
                if let Some(link) = &mut self.link {
                    link.drain();
                }
                tracing::info!(domain = %self.domain, "the peer is going away");
            }
            Some(SessionEvent::Broke(refusal)) => self.end_connection(refusal, true).await,
            Some(SessionEvent::Gone(refusal)) => {
                let shared = Arc::clone(&self.shared);
                shared.heed(&refusal).await;
                self.end_connection(refusal, false).await;
            }
            None => self.end_connection(Code::PEER_UNREACHABLE.into(), false).await,
        }
    }

    /// The connection ends: by this side with a refusal, or it is gone for one.
    pub(super) async fn end_connection(&mut self, refusal: Refusal, by_us: bool) {
        self.drain_until_ms = None;
        let Some(session) = &self.session else { return };
        if by_us {
            handshake::close(&session.connection, &refusal);
        } else {
            handshake::close(&session.connection, &Code::GOING_AWAY.into());
        }
        let codes = [Code::TAKEN_OVER, Code::GOING_AWAY, Code::PEER_DENIED, Code::PEER_GONE];
        let orderly = codes.contains(&refusal.code);
        let leaving = session.leaving;
        let next_ms = self.backoff.next_ms();
        self.drop_session(orderly || leaving);
        let ended = if by_us { "closed" } else { "lost" };
        self.failed(format!("the connection was {ended}: {refusal}")).await;
        if leaving {
            // The peer said when it wants to see this home again.
            let (now_ms, random) = (self.now_ms(), self.random());
            self.backoff.reset();
            self.backoff.asked(now_ms, next_ms.saturating_sub(now_ms), 0, random);
        }
    }

    pub(super) fn drop_session(&mut self, orderly: bool) {
        self.session = None;
        self.full = false;
        if let Some(link) = &mut self.link {
            link.lost(orderly);
            self.owed |= link.queued() > 0 || link.has_news();
        }
    }

    /// The server stops: GoAway, what is in flight ends, close.
    pub(super) async fn leave(&mut self) {
        if let Some(session) = &mut self.session {
            let reason = Some(Refusal::from(Code::GOING_AWAY).to_pb());
            let away = pb::GoAway { reconnect_after_ms: 500, jitter_ms: 5000, reason };
            handshake::tell(&mut session.control, &away).await;
        }
        if let Some(link) = &mut self.link {
            link.drain();
        }
        let until = self.now_ms().saturating_add(DRAIN_MS);
        while self.session.is_some()
            && self.now_ms() < until
            && !(self.link.as_ref().is_none_or(Link::is_idle)
                && self.orders.is_empty()
                && self.side.is_empty())
        {
            let step = std::time::Duration::from_millis(until.saturating_sub(self.now_ms()).max(1));
            let input = tokio::time::timeout(step, self.next_while_leaving()).await;
            let Ok(input) = input else { break };
            Box::pin(self.handle(input)).await;
            self.drive();
        }
        if let Some(session) = &self.session {
            session.close_places();
            handshake::close(&session.connection, &Code::GOING_AWAY.into());
        }
        self.session = None;
        while self.orders.join_next().await.is_some() {}
    }
}
