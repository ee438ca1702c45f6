//! The handle that the server holds: start, hand over connections, say what was appended, ask, look, stop.

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::codec::{self, Frame, FrameMessage};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::AccountId;
use tidings_proto::limits;
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tokio::sync::oneshot;

use crate::discovery::{Discovery, SetUpError, StaticPeer, web_trust};
use crate::host::{Host, PeerStatus, Unavailable};
use crate::link::LinkLimits;
use crate::net::{Command, Shared, remote};
use crate::policy::{Policy, Rules};

/// Numbers in force; the defaults are the registry's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `frame_bytes_max` as advertised.
    pub frame_bytes: usize,
    /// `pipelines_max` as advertised: what a peer may open, and what this side opens to one.
    pub pipelines_max: usize,
    /// `requests_per_second` that a peer may make.
    pub requests_per_second: u64,
    /// Requests of groups that a peer may make in a second, apart from the others.
    pub group_requests_per_second: u64,
    /// `request_deadline_ms`.
    pub request_deadline_ms: u64,
    /// `handshake_ms`.
    pub handshake_ms: u64,
    /// `reconnect_base_ms`.
    pub reconnect_base_ms: u64,
    /// `reconnect_max_ms`.
    pub reconnect_max_ms: u64,
    /// `outbox_age_max_secs`.
    pub outbox_age_max_secs: u64,
    /// `account_new_domains_per_hour`.
    pub account_new_domains_per_hour: u64,
    /// `home_new_domains_per_minute`; counted apart for homes that connect and have to be looked up.
    pub home_new_domains_per_minute: u64,
    /// `shared_new_domains_per_hour`.
    pub shared_new_domains_per_hour: u64,
    /// Of each link.
    pub link: LinkLimits,
}

impl Default for Settings {
    fn default() -> Self {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Self {
            frame_bytes: size(limits::FRAME_BYTES_MAX),
            pipelines_max: size(limits::PIPELINES_MAX),
            requests_per_second: limits::REQUESTS_PER_SECOND,
            // One batch of a group is in flight at a time; what is limited is a peer in very many groups.
            group_requests_per_second: limits::REQUESTS_PER_SECOND.saturating_mul(10),
            request_deadline_ms: limits::REQUEST_DEADLINE_MS,
            handshake_ms: limits::HANDSHAKE_MS,
            reconnect_base_ms: limits::RECONNECT_BASE_MS,
            reconnect_max_ms: limits::RECONNECT_MAX_MS,
            outbox_age_max_secs: limits::OUTBOX_AGE_MAX_SECS,
            account_new_domains_per_hour: limits::ACCOUNT_NEW_DOMAINS_PER_HOUR,
            home_new_domains_per_minute: limits::HOME_NEW_DOMAINS_PER_MINUTE,
            shared_new_domains_per_hour: limits::SHARED_NEW_DOMAINS_PER_HOUR,
            link: LinkLimits::default(),
        }
    }
}

/// What federation is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Peers found without discovery.
    pub static_peers: Vec<StaticPeer>,
    /// Whom to trust for certificates of all other peers.
    pub web_trust: rustls::RootCertStore,
    /// Whether domains are looked up on the Internet; without it only static peers are dialled.
    pub discovery: bool,
    /// Which domains this home talks to.
    pub rules: Rules,
    /// Numbers.
    pub settings: Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            static_peers: Vec::new(),
            web_trust: web_trust(),
            discovery: true,
            rules: Rules::default(),
            settings: Settings::default(),
        }
    }
}

/// Why federation does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// TLS or DNS.
    #[error("federation cannot be set up")]
    SetUp(#[from] SetUpError),
    /// The store.
    #[error("the stored peers cannot be read")]
    Store(#[from] Unavailable),
}

/// Homeserver to homeserver, running. Cheap to clone.
#[derive(Clone)]
pub struct Federation {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Federation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Federation")
    }
}

impl Federation {
    /// Starts: reads the stored peers and dials those to whom something is owed. The endpoint's socket is the
    /// server's; its accepted connections with the protocol between homes are to be given to [`Self::accept`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        host: Arc<dyn Host>,
        endpoint: quinn::Endpoint,
        config: Config,
    ) -> Result<Self, StartError> {
        let discovery = Discovery::new(config.static_peers, config.web_trust, config.discovery)?;
        let policy = Policy::new(config.rules);
        let stored = host.peers().await?;
        let shared = Arc::new(Shared::new(host, endpoint, discovery, policy, config.settings));
        // Of two records of a domain the one that is not replaced is the present one, and comes last.
        let replaced = |peer: &crate::host::StoredPeer| peer.record.state != crate::peer::PeerState::Replaced;
        let mut stored = stored;
        stored.sort_by_key(|peer| (replaced(peer), peer.record.since_ms));
        for peer in &stored {
            shared.set_record(peer.record.clone());
        }
        for peer in stored {
            if shared.record(&peer.record.domain).as_ref() == Some(&peer.record) {
                shared.wake(peer.record, peer.oldest_ms);
            }
        }
        Ok(Self { shared })
    }

    /// Serves a connection with the protocol between homes. Returns when it was refused or handed on to its
    /// peer's task, at the latest after twice `handshake_ms`: to be awaited in a task of its own.
    pub async fn accept(&self, connection: quinn::Connection) {
        self.shared.accept(connection).await;
    }

    /// Something was put into the outbox for a domain, or waits outside it for a number. Never blocks; may be
    /// called more often than needed.
    pub fn appended(&self, domain: &Domain) {
        self.shared.appended(domain);
    }

    /// Whether a submission of an account for a domain is taken: `not-permitted` where the rules deny the domain,
    /// `peer-replaced`, `peer-gone` (FED-012, FED-013), `too-fast` where it is one new domain too many (LIM-010).
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn admits(&self, domain: &Domain, account: AccountId) -> Result<(), Refusal> {
        if !self.shared.policy.allows(domain) {
            return Err(Refusal::new(Code::NOT_PERMITTED, "this home does not talk to that domain"));
        }
        match self.shared.record(domain).and_then(|record| record.state.refuses()) {
            None => self.shared.may_discover(domain, Some(account)),
            Some(code) => {
                // A peer that is gone is dialled at times, so that it can come back.
                self.shared.appended(domain);
                Err(code.into())
            }
        }
    }

    /// Asks a domain what an address there points to; for an account here, or for the home itself.
    ///
    /// # Errors
    /// The peer's refusal; `peer-unreachable`, `peer-unknown`, `not-permitted`, `too-fast`, `timed-out`.
    pub async fn resolve(
        &self,
        asking: Option<AccountId>,
        domain: &Domain,
        request: pb::Resolve,
    ) -> Result<pb::Resolved, Refusal> {
        match self.ask(asking, domain, &request).await? {
            Frame::Resolved(answer) => Ok(answer),
            other => Err(wrong_answer(&other)),
        }
    }

    /// Asks a domain for bundles of an account there.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn fetch_bundles(
        &self,
        asking: Option<AccountId>,
        domain: &Domain,
        request: pb::FetchBundles,
    ) -> Result<pb::Bundles, Refusal> {
        match self.ask(asking, domain, &request).await? {
            Frame::Bundles(answer) => Ok(answer),
            other => Err(wrong_answer(&other)),
        }
    }

    /// Asks a domain something about a group (chapter 07), for an account here or for the home itself: GroupBatch,
    /// GroupOffer, GroupAppend, GroupFetch, GroupMarks, GroupMarksFetch, KeeperAsk or KeeperPropose.
    ///
    /// # Errors
    /// As [`Self::resolve`]; `peer-unreachable` for an answer of another type.
    pub async fn group<M: FrameMessage, A: FrameMessage>(
        &self,
        asking: Option<AccountId>,
        domain: &Domain,
        request: &M,
    ) -> Result<A, Refusal> {
        let answer = self.ask(asking, domain, request).await?;
        codec::decode(&answer.to_raw()).map_err(|_| wrong_answer(&answer))
    }

    async fn ask<M: FrameMessage>(
        &self,
        asking: Option<AccountId>,
        domain: &Domain,
        request: &M,
    ) -> Result<Frame, Refusal> {
        if !self.shared.policy.allows(domain) {
            return Err(Refusal::new(Code::NOT_PERMITTED, "this home does not talk to that domain"));
        }
        self.shared.may_discover(domain, asking)?;
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.shared.tell(domain, Command::Ask(remote::request(request), reply), true).await;
            let gone = || Err(Refusal::new(Code::PEER_UNREACHABLE, "federation is stopping"));
            answer.await.unwrap_or_else(|_| gone())
        };
        let deadline = Duration::from_millis(self.shared.settings.request_deadline_ms);
        tokio::time::timeout(deadline, asking).await.unwrap_or_else(|_| Err(Code::TIMED_OUT.into()))
    }

    /// Every peer as it is now, by domain.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        let mut peers = Vec::new();
        for domain in self.shared.domains() {
            let (reply, status) = oneshot::channel();
            self.shared.tell(&domain, Command::Status(reply), false).await;
            peers.extend(status.await);
        }
        peers
    }

    /// Dials a peer now, whatever its back-off.
    pub async fn retry(&self, domain: &Domain) {
        self.shared.tell(domain, Command::Retry, true).await;
    }

    /// The operator accepts the chain that a replaced peer's domain shows now.
    pub async fn accept_replacement(&self, domain: &Domain) {
        self.shared.tell(domain, Command::AcceptReplacement, false).await;
    }

    /// The operator forgets a peer: its outbox is closed, its state is gone.
    pub async fn forget(&self, domain: &Domain) {
        self.shared.tell(domain, Command::Forget, false).await;
    }

    /// Other rules from now on; connections of domains that they deny are closed.
    pub fn reload(&self, rules: Rules) {
        self.shared.policy.replace(rules);
    }

    /// The rules in force, to be shared.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.shared.policy.clone()
    }

    /// As the beginning of [`Self::stop`], which is still to be called: nothing is sent or taken any more.
    pub fn halt(&self) {
        self.shared.stopping.send_replace(true);
    }

    /// Says GoAway to every peer, lets what is in flight end, closes. The endpoint stays open.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        if tokio::time::timeout(Duration::from_secs(10), self.shared.join()).await.is_err() {
            tracing::warn!("links to peers were still busy after 10 s and are dropped");
        }
    }
}

fn wrong_answer(frame: &Frame) -> Refusal {
    Refusal::new(Code::PEER_UNREACHABLE, format!("the peer answered with {}", frame.name()))
}
