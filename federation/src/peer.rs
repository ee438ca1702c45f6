//! The state of a peer: may it be dialled, and what becomes of its outbox (chapter 09, 9.3 and 9.4).
//!
//! Pure: [`step`] is the table of 9.3, [`Backoff`] says when the next dial is due, [`newer_stays`] which of two
//! connections is kept. Time and random numbers are arguments.
//!
//! | event | new | up | unreachable | replaced | gone |
//! |---|---|---|---|---|---|
//! | proven | up | up | up | up | up, fresh outbox |
//! | failed or lost | new | unreachable | unreachable | replaced | gone |
//! | other genesis | replaced, close | up, fail it | replaced, close | note | note |
//! | too old | gone, close | up | gone, close | replaced | gone |
//! | appended | new, dial | up, ship | unreachable | replaced, refuse | gone, refuse |
//! | accepted | new | up | unreachable | replaced, fresh record | gone |
//! | denied | gone, close | gone, close connection and outbox | the same | replaced | gone |
//! | forgotten | gone | gone, close connection | gone, close | gone | gone |
//!
//! What this module does not do: dial, or store anything.

use std::fmt;

use tidings_proto::error::Code;
use tidings_proto::limits;
use tidings_proto::name::Domain;

/// Where a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerState {
    /// No connection was proven so far.
    New,
    /// A proven connection stands.
    Up,
    /// There was one.
    Unreachable,
    /// The domain shows another chain under valid TLS.
    Replaced,
    /// Nothing came through for too long, or the operator ended it.
    Gone,
}

impl PeerState {
    /// The word for logs, settings and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up => "up",
            Self::Unreachable => "unreachable",
            Self::Replaced => "replaced",
            Self::Gone => "gone",
        }
    }

    /// Reads [`Self::as_str`] back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::New, Self::Up, Self::Unreachable, Self::Replaced, Self::Gone]
            .into_iter()
            .find(|state| state.as_str() == word)
    }

    /// Why a submission for this peer is refused, if it is (FED-012, FED-013).
    #[must_use]
    pub const fn refuses(self) -> Option<Code> {
        match self {
            Self::Replaced => Some(Code::PEER_REPLACED),
            Self::Gone => Some(Code::PEER_GONE),
            Self::New | Self::Up | Self::Unreachable => None,
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection was proven for the record's chain.
    Proven,
    /// A dial failed, or the connection is gone.
    Failed,
    /// Another chain was shown under valid TLS.
    OtherGenesis,
    /// The oldest entry without a result is older than `outbox_age_max_secs`.
    TooOld,
    /// Something is to be appended to the outbox.
    Appended,
    /// The new chain is accepted: by the operator, or for having been served long enough.
    Accepted,
    /// The rules deny the domain.
    Denied,
    /// The operator forgot the peer.
    Forgotten,
}

/// What follows from an event besides the next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Go on at the peer's cursor; the back-off begins anew.
    Resume,
    /// The outbox begins a new incarnation: it was closed.
    FreshOutbox,
    /// Wait, then dial again if there is a reason.
    BackOff,
    /// Every entry without a result becomes a Void with this code.
    CloseOutbox(Code),
    /// Close the connection with this code; in state up an additional one that shows another chain.
    CloseConnection(Code),
    /// Remember which other chain is shown, and since when.
    NoteGenesis,
    /// Dial if no back-off stands against it.
    Dial,
    /// Ship it.
    Ship,
    /// Refuse the submission.
    Refuse(Code),
    /// Open a record in state new for the other chain.
    FreshRecord,
}

/// The table of 9.3: the next state and what is to be done, in order.
#[must_use]
pub fn step(state: PeerState, event: Event) -> (PeerState, &'static [Action]) {
    use Action as A;
    use PeerState as S;
    const CLOSE_REPLACED: &[A] = &[A::CloseOutbox(Code::PEER_REPLACED), A::NoteGenesis];
    const CLOSE_GONE: &[A] = &[A::CloseOutbox(Code::PEER_GONE)];
    const CLOSE_DENIED: &[A] = &[A::CloseConnection(Code::PEER_DENIED), A::CloseOutbox(Code::NOT_PERMITTED)];
    match (event, state) {
        (Event::Proven, S::Gone) => (S::Up, &[A::FreshOutbox, A::Resume]),
        (Event::Proven, _) => (S::Up, &[A::Resume]),
        (Event::Failed, S::Up) => (S::Unreachable, &[A::BackOff]),
        (Event::Failed, S::Gone) => (S::Gone, &[]),
        (Event::Failed, state) => (state, &[A::BackOff]),
        (Event::OtherGenesis, S::New | S::Unreachable) => (S::Replaced, CLOSE_REPLACED),
        (Event::OtherGenesis, S::Up) => (S::Up, &[A::CloseConnection(Code::WRONG_SERVER)]),
        (Event::OtherGenesis, state) => (state, &[A::NoteGenesis]),
        (Event::TooOld, S::New | S::Unreachable) => (S::Gone, CLOSE_GONE),
        (Event::TooOld, state) => (state, &[]),
        (Event::Appended, S::New) => (S::New, &[A::Dial]),
        (Event::Appended, S::Up) => (S::Up, &[A::Ship]),
        (Event::Appended, S::Unreachable) => (S::Unreachable, &[A::Dial]),
        (Event::Appended, S::Replaced) => (S::Replaced, &[A::Refuse(Code::PEER_REPLACED)]),
        (Event::Appended, S::Gone) => (S::Gone, &[A::Dial, A::Refuse(Code::PEER_GONE)]),
        (Event::Accepted, S::Replaced) => (S::Replaced, &[A::FreshRecord]),
        (Event::Accepted, state) => (state, &[]),
        (Event::Denied, S::New) => (S::Gone, &[A::CloseOutbox(Code::NOT_PERMITTED)]),
        (Event::Denied, S::Up | S::Unreachable) => (S::Gone, CLOSE_DENIED),
        (Event::Denied, state) => (state, &[]),
        (Event::Forgotten, S::Up) => {
            (S::Gone, &[A::CloseConnection(Code::PEER_GONE), A::CloseOutbox(Code::PEER_GONE)])
        }
        (Event::Forgotten, S::New | S::Unreachable) => (S::Gone, CLOSE_GONE),
        (Event::Forgotten, _) => (S::Gone, &[]),
    }
}

/// When the next dial is due: full jitter over a doubling bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base_ms: u64,
    max_ms: u64,
    failures: u32,
    next_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(limits::RECONNECT_BASE_MS, limits::RECONNECT_MAX_MS)
    }
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub const fn new(base_ms: u64, max_ms: u64) -> Self {
        Self { base_ms, max_ms, failures: 0, next_ms: 0 }
    }

    /// A dial failed: the next is due after a random part of the bound. `random` is any number.
    pub fn failed(&mut self, now_ms: u64, random: u64) {
        self.failures = self.failures.saturating_add(1);
        let doubled = 1_u64.checked_shl(self.failures).unwrap_or(u64::MAX).saturating_mul(self.base_ms);
        self.wait(now_ms, doubled.min(self.max_ms), random);
    }

    /// The other side asked for a delay: it counts for no failure.
    pub fn asked(&mut self, now_ms: u64, delay_ms: u64, jitter_ms: u64, random: u64) {
        let delay_ms = delay_ms.min(self.max_ms);
        self.wait(now_ms.saturating_add(delay_ms), jitter_ms.min(self.max_ms), random);
    }

    fn wait(&mut self, from_ms: u64, bound_ms: u64, random: u64) {
        let part = random.checked_rem(bound_ms.saturating_add(1)).unwrap_or(0);
        self.next_ms = from_ms.saturating_add(part);
    }

    /// There is news of the peer: the next dial is due within `base_ms`, and what failed still counts.
    pub fn soon(&mut self, now_ms: u64, random: u64) {
        let part = random.checked_rem(self.base_ms.saturating_add(1)).unwrap_or(0);
        self.next_ms = self.next_ms.min(now_ms.saturating_add(part));
    }

    /// The peer is there, or the operator wants it: no wait.
    pub const fn reset(&mut self) {
        self.failures = 0;
        self.next_ms = 0;
    }

    /// When the next dial may begin, milliseconds since 1970; 0 for at once.
    #[must_use]
    pub const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// How many dials failed since the last success.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

/// What decides between two connections with one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Whether this home dialled.
    pub by_us: bool,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// The peer's boot id on it.
    pub peer_boot: [u8; 16],
}

/// Whether the newer one of two connections stays (TRN-072, TRN-073).
///
/// The newer one does, unless the two are simultaneous: each side opened one, within `within_ms`, and the peer
/// is the same process on both. Then the one opened by the domain that sorts first stays.
#[must_use]
pub fn newer_stays(older: &Opened, newer: &Opened, own: &Domain, peer: &Domain, within_ms: u64) -> bool {
    let simultaneous = older.by_us != newer.by_us
        && older.peer_boot == newer.peer_boot
        && newer.at_ms.abs_diff(older.at_ms) <= within_ms;
    let own_first = own.as_str() < peer.as_str();
    !simultaneous || newer.by_us == own_first
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [PeerState; 5] =
        [PeerState::New, PeerState::Up, PeerState::Unreachable, PeerState::Replaced, PeerState::Gone];

    #[test]
    fn a_proven_connection_brings_every_state_up() {
        for state in STATES {
            assert_eq!(step(state, Event::Proven).0, PeerState::Up);
        }
        assert_eq!(step(PeerState::Gone, Event::Proven).1.first(), Some(&Action::FreshOutbox));
    }

    #[test]
    fn only_an_up_peer_becomes_unreachable() {
        let after = STATES.map(|state| step(state, Event::Failed).0);
        let expected = [
            PeerState::New,
            PeerState::Unreachable,
            PeerState::Unreachable,
            PeerState::Replaced,
            PeerState::Gone,
        ];
        assert_eq!(after, expected);
    }

    #[test]
    fn another_chain_does_not_disturb_a_standing_connection() {
        let (state, actions) = step(PeerState::Up, Event::OtherGenesis);
        assert_eq!(state, PeerState::Up);
        assert_eq!(actions, [Action::CloseConnection(Code::WRONG_SERVER)]);
        let (state, actions) = step(PeerState::Unreachable, Event::OtherGenesis);
        assert_eq!(state, PeerState::Replaced);
        assert!(actions.contains(&Action::CloseOutbox(Code::PEER_REPLACED)));
    }

    #[test]
    fn an_outbox_ages_only_while_the_peer_is_away() {
        let after = STATES.map(|state| step(state, Event::TooOld).0);
        let expected =
            [PeerState::Gone, PeerState::Up, PeerState::Gone, PeerState::Replaced, PeerState::Gone];
        assert_eq!(after, expected);
    }

    #[test]
    fn submissions_are_refused_exactly_when_replaced_or_gone() {
        for state in STATES {
            let refused = step(state, Event::Appended)
                .1
                .iter()
                .find_map(|action| if let Action::Refuse(code) = action { Some(*code) } else { None });
            assert_eq!(refused, state.refuses());
            assert_eq!(PeerState::parse(state.as_str()), Some(state));
        }
    }

    #[test]
    fn a_denied_peer_is_gone_and_its_outbox_closed() {
        for state in [PeerState::New, PeerState::Up, PeerState::Unreachable] {
            let (next, actions) = step(state, Event::Denied);
            assert_eq!(next, PeerState::Gone);
            assert!(actions.contains(&Action::CloseOutbox(Code::NOT_PERMITTED)));
        }
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_is_random_below_it() {
        let mut backoff = Backoff::new(500, 60_000);
        let mut bounds = Vec::new();
        for _ in 0..70 {
            let mut high = backoff;
            // The largest remainder: one below a multiple of bound + 1 is reached by bound itself.
            high.failed(0, 0);
            assert_eq!(high.next_ms(), 0, "a random 0 dials at once");
            let k = high.failures();
            let bound = 500_u64.saturating_mul(1_u64.checked_shl(k).unwrap_or(u64::MAX)).min(60_000);
            backoff.failed(1000, bound);
            assert_eq!(backoff.next_ms(), 1000 + bound);
            bounds.push(bound);
        }
        assert_eq!(&bounds[..8], [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        backoff.reset();
        assert_eq!((backoff.next_ms(), backoff.failures()), (0, 0));
    }

    #[test]
    fn simultaneous_dials_leave_the_one_of_the_first_domain_on_both_sides() {
        let (a, b) = (Domain::parse("a.test").unwrap(), Domain::parse("b.test").unwrap());
        let opened = |by_us, at_ms| Opened { by_us, at_ms, peer_boot: [1; 16] };
        // a's own dial is older at a; at b the connection that a opened is newer.
        assert!(!newer_stays(&opened(true, 0), &opened(false, 10), &a, &b, 5000), "a keeps its own");
        assert!(newer_stays(&opened(true, 0), &opened(false, 10), &b, &a, 5000), "b takes a's");
        assert!(newer_stays(&opened(true, 0), &opened(false, 5001), &a, &b, 5000), "too far apart");
        assert!(newer_stays(&opened(false, 0), &opened(false, 1), &a, &b, 5000), "opened by one side");
        let restarted = Opened { peer_boot: [2; 16], ..opened(false, 10) };
        assert!(newer_stays(&opened(true, 0), &restarted, &a, &b, 5000), "another process");
    }
}
