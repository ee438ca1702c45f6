//! Error codes and refusals as they travel (chapter 01, `spec/registry/errors.toml`).
//!
//! A code says what happened; its scope how far it reaches; its retry class whether trying again can
//! help. Scope and retry class travel beside the code, so that unknown codes can be acted on; a code
//! that is not known here is kept and printed as its number.
//!
//! What this module does not do: decide which code an inner error becomes; each crate has one place
//! for that.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::pb;
pub use crate::pb::{Retry, Scope};

/// Bytes of `detail` that travel.
pub const DETAIL_BYTES_MAX: usize = 256;

/// A code of the registry, or one not known here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u32);

struct Entry {
    code: u32,
    name: &'static str,
    scope: Scope,
    retry: Retry,
    show: bool,
    text: &'static str,
}

include!("generated/errors.rs");

impl Code {
    fn entry(self) -> Option<&'static Entry> {
        TABLE.iter().find(|entry| entry.code == self.0)
    }

    /// All registered codes.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| Self(entry.code))
    }

    /// The registered name; `None` if not known here.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.name)
    }

    /// How far it reaches; unknown codes: the request.
    #[must_use]
    pub fn scope(self) -> Scope {
        self.entry().map_or(Scope::Request, |entry| entry.scope)
    }

    /// Whether trying again can help; unknown codes: never.
    #[must_use]
    pub fn retry(self) -> Retry {
        self.entry().map_or(Retry::Never, |entry| entry.retry)
    }

    /// Whether the sentence is meant for the person at the client.
    #[must_use]
    pub fn is_shown(self) -> bool {
        self.entry().is_some_and(|entry| entry.show)
    }

    /// One sentence for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.entry().map_or("The other side refused for a reason not known here.", |entry| entry.text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A rule says no: what becomes a `failure` frame, or came as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What happened.
    pub code: Code,
    /// How far it reaches.
    pub scope: Scope,
    /// Whether trying again can help.
    pub retry: Retry,
    /// With [`Retry::AfterDelay`]: how long to wait, if stated.
    pub retry_after: Option<Duration>,
    /// For logs, at most 256 bytes; never shown to people, never with names or addresses in it.
    pub detail: String,
    /// With `wrong-devices`: those missing or surplus.
    pub devices: Vec<Bytes>,
    /// With `wrong-devices`, `stale-link` and `links`: the chain's head as the refuser knows it.
    pub head: Bytes,
    /// With `wrong-server`: links of its own server chain that the refused side did not show, in order.
    pub links: Vec<pb::Link>,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "{}", self.code)
        } else {
            write!(f, "{}: {}", self.code, self.detail)
        }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self::new(code, "")
    }
}

impl Refusal {
    /// A refusal with the code's own scope and retry class.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            let cut =
                (0..=DETAIL_BYTES_MAX).rev().find(|at| detail.is_char_boundary(*at)).unwrap_or_default();
            detail.truncate(cut);
        }
        Self {
            code,
            scope: code.scope(),
            retry: code.retry(),
            retry_after: None,
            detail,
            devices: Vec::new(),
            head: Bytes::new(),
            links: Vec::new(),
        }
    }

    /// States how long to wait.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Names the head the refuser knows.
    #[must_use]
    pub fn with_head(mut self, head: impl Into<Bytes>) -> Self {
        self.head = head.into();
        self
    }

    /// Hands over links of the other side's own server chain.
    #[must_use]
    pub fn with_links(mut self, links: Vec<pb::Link>) -> Self {
        self.links = links;
        self
    }

    /// Names devices.
    #[must_use]
    pub fn with_devices(mut self, devices: Vec<Bytes>) -> Self {
        self.devices = devices;
        self
    }

    /// As it travels.
    #[must_use]
    pub fn to_pb(&self) -> pb::Failure {
        pb::Failure {
            code: self.code.0,
            scope: self.scope.into(),
            retry: self.retry.into(),
            retry_after_ms: self
                .retry_after
                .map_or(0, |delay| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)),
            detail: self.detail.clone(),
            devices: self.devices.clone(),
            head: self.head.clone(),
            links: self.links.clone(),
        }
    }

    /// As it came. For known codes scope and retry class are the registry's, whatever was sent.
    #[must_use]
    pub fn from_pb(failure: &pb::Failure) -> Self {
        let code = Code(failure.code);
        let mut refusal = Self::new(code, failure.detail.clone());
        if code.name().is_none() {
            let told = (Scope::try_from(failure.scope), Retry::try_from(failure.retry));
            refusal.scope = told.0.ok().filter(|scope| *scope != Scope::Unspecified).unwrap_or(refusal.scope);
            refusal.retry = told.1.ok().filter(|retry| *retry != Retry::Unspecified).unwrap_or(refusal.retry);
        }
        refusal.retry_after =
            (failure.retry_after_ms > 0).then(|| Duration::from_millis(failure.retry_after_ms.into()));
        refusal.devices.clone_from(&failure.devices);
        refusal.head = failure.head.clone();
        if code == Code::WRONG_SERVER {
            refusal.links.clone_from(&failure.links);
        }
        refusal
    }
}

impl From<&Refusal> for pb::Failure {
    fn from(refusal: &Refusal) -> Self {
        refusal.to_pb()
    }
}

impl From<Refusal> for pb::Failure {
    fn from(refusal: Refusal) -> Self {
        refusal.to_pb()
    }
}

impl From<pb::Failure> for Refusal {
    fn from(failure: pb::Failure) -> Self {
        Self::from_pb(&failure)
    }
}

impl From<&crate::frame::FrameError> for Refusal {
    fn from(error: &crate::frame::FrameError) -> Self {
        use crate::frame::FrameError as E;
        let code = match error {
            E::Header(_) | E::Truncated(_) => Code::FRAME_MALFORMED,
            E::TooLarge { .. } => Code::FRAME_TOO_LARGE,
            E::UnknownCritical(_) => Code::FRAME_UNKNOWN,
            E::Payload { .. } => Code::MESSAGE_MALFORMED,
            E::Unexpected { .. } => Code::FRAME_UNEXPECTED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&crate::chain::LinkError> for Refusal {
    fn from(error: &crate::chain::LinkError) -> Self {
        use crate::chain::LinkError as E;
        let code = match error {
            E::Number { .. } | E::Previous { .. } => Code::STALE_LINK,
            E::Full => Code::LINK_LIMIT,
            E::Closed => Code::ACCOUNT_CLOSED,
            _ => Code::LINK_INVALID,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&crate::chain::group::GroupLinkError> for Refusal {
    fn from(error: &crate::chain::group::GroupLinkError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_codes_keep_their_scope_whatever_was_sent() {
        let mut failure = Refusal::new(Code::AUTH_FAILED, "x").to_pb();
        failure.scope = Scope::Request.into();
        let refusal = Refusal::from_pb(&failure);
        assert_eq!((refusal.scope, refusal.retry), (Scope::Connection, Retry::Never));
    }

    #[test]
    fn unknown_codes_are_kept_with_what_was_sent() {
        let failure =
            pb::Failure { code: 0x7777, scope: 2, retry: 3, retry_after_ms: 5, ..Default::default() };
        let refusal = Refusal::from_pb(&failure);
        assert_eq!(
            (refusal.code, refusal.scope, refusal.retry),
            (Code(0x7777), Scope::Stream, Retry::AfterDelay)
        );
        assert_eq!(refusal.to_pb(), failure);
        assert_eq!(refusal.to_string(), "error 0x7777");
        let nonsense = pb::Failure { code: 0x7777, scope: -1, retry: 99, ..Default::default() };
        assert_eq!(Refusal::from_pb(&nonsense).retry, Retry::Never);
    }

    #[test]
    fn long_details_are_cut_between_characters() {
        let refusal = Refusal::new(Code::INTERNAL, "\u{e4}".repeat(200));
        assert_eq!(refusal.detail.len(), 256);
        assert_eq!(Refusal::new(Code::INTERNAL, "\u{20ac}".repeat(200)).detail.len(), 255);
    }

    #[test]
    fn every_registered_code_has_all_it_needs() {
        for code in Code::all() {
            assert!(
                code.name().is_some()
                    && code.scope() != Scope::Unspecified
                    && code.retry() != Retry::Unspecified
            );
            assert!(code.text().ends_with('.'), "{code}");
        }
    }

    proptest! {
        #[test]
        fn whatever_failure_comes_can_be_acted_on_and_told_on(code: u32, scope: i32, retry: i32, delay: u32, detail: String) {
            let failure =
                pb::Failure { code, scope, retry, retry_after_ms: delay, detail, ..Default::default() };
            let refusal = Refusal::from_pb(&failure);
            prop_assert!(refusal.scope != Scope::Unspecified && refusal.retry != Retry::Unspecified);
            prop_assert!(refusal.detail.len() <= DETAIL_BYTES_MAX);
            prop_assert_eq!(Refusal::from_pb(&refusal.to_pb()), refusal);
        }
    }
}
