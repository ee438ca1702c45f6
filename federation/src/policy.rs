//! Which domains this home talks to (chapter 09, FED-004 and FED-005).
//!
//! [`Policy`] is a shared handle: replacing its rules acts at once, on open connections too.
//!
//! What this module does not do: close connections.

use std::str::FromStr;
use std::sync::Arc;

use tidings_proto::name::{Domain, NameError};
use tokio::sync::watch;

/// A domain, or with `*.` before it every domain below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This one.
    Exact(Domain),
    /// All that end in a dot and this one; not this one itself.
    Below(Domain),
}

impl Pattern {
    /// Whether a domain is meant.
    #[must_use]
    pub fn matches(&self, domain: &Domain) -> bool {
        match self {
            Self::Exact(exact) => exact == domain,
            Self::Below(suffix) => domain
                .as_str()
                .strip_suffix(suffix.as_str())
                .is_some_and(|before| before.len() > 1 && before.ends_with('.')),
        }
    }
}

impl FromStr for Pattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            Some(suffix) => Domain::parse(suffix).map(Self::Below),
            None => Domain::parse(text).map(Self::Exact),
        }
    }
}

/// Allow and deny lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// If any stands here, only what one of them matches is allowed.
    pub allow: Vec<Pattern>,
    /// Denied, whatever is allowed.
    pub deny: Vec<Pattern>,
}

impl Rules {
    /// Whether this home talks to a domain.
    #[must_use]
    pub fn allows(&self, domain: &Domain) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(domain));
        !any(&self.deny) && (self.allow.is_empty() || any(&self.allow))
    }
}

/// The rules in force, shared.
#[derive(Debug, Clone)]
pub struct Policy(Arc<watch::Sender<Rules>>);

impl Policy {
    /// These rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self(Arc::new(watch::Sender::new(rules)))
    }

    /// Other rules from now on.
    pub fn replace(&self, rules: Rules) {
        self.0.send_replace(rules);
    }

    /// Whether this home talks to a domain now.
    #[must_use]
    pub fn allows(&self, domain: &Domain) -> bool {
        self.0.borrow().allows(domain)
    }

    /// Tells of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<Rules> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn a_star_means_what_is_below() {
        let below: Pattern = "*.peers.test".parse().unwrap();
        assert!(below.matches(&domain("a.peers.test")) && below.matches(&domain("a.b.peers.test")));
        assert!(!below.matches(&domain("peers.test")) && !below.matches(&domain("xpeers.test")));
        assert!("*.*.test".parse::<Pattern>().is_err());
    }

    #[test]
    fn deny_beats_allow_and_an_empty_allow_list_allows_all() {
        let policy = Policy::new(Rules::default());
        assert!(policy.allows(&domain("a.test")));
        let allow = vec!["a.test".parse().unwrap(), "*.b.test".parse().unwrap()];
        policy.replace(Rules { allow, deny: vec!["x.b.test".parse().unwrap()] });
        assert!(policy.allows(&domain("a.test")) && policy.allows(&domain("y.b.test")));
        assert!(!policy.allows(&domain("x.b.test")) && !policy.allows(&domain("c.test")));
    }
}
