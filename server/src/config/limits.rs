//! The limits in force: the registry's defaults, some raised or lowered by the operator.

use std::collections::BTreeMap;

use tidings_proto::pb;

const REGISTRY: &str = include_str!("../../../spec/registry/limits.toml");

#[derive(Debug, Clone, serde::Deserialize)]
struct Row {
    id: u32,
    name: String,
    default: u64,
    min: u64,
    max: u64,
    advertised: bool,
}

#[derive(serde::Deserialize)]
struct Registry {
    limit: Vec<Row>,
}

/// Every limit of the registry, with its value here.
#[derive(Debug, Clone)]
pub struct Limits {
    rows: BTreeMap<String, Row>,
}

/// Why a limit cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No such limit.
    #[error("no such limit")]
    Unknown,
    /// Outside the registry's range.
    #[error("a number from {0} to {1}")]
    Range(u64, u64),
}

impl Default for Limits {
    fn default() -> Self {
        let registry: Registry = toml::from_str(REGISTRY).expect("the registry is checked by a test");
        Self { rows: registry.limit.into_iter().map(|row| (row.name.clone(), row)).collect() }
    }
}

macro_rules! accessors {
    ($($name:ident),* $(,)?) => {
        impl Limits {
            $(
                #[doc = concat!("The registry's `", stringify!($name), "`.")]
                #[must_use]
                pub fn $name(&self) -> u64 {
                    self.of(stringify!($name))
                }
            )*
        }
        #[cfg(test)]
        const NAMED: &[&str] = &[$(stringify!($name)),*];
    };
}

accessors!(
    frame_bytes_max,
    control_frame_bytes_max,
    pipeline_requests_max,
    pipelines_max,
    outcomes_kept,
    ciphertext_bytes_max,
    device_links_per_hour,
    account_links_max,
    account_links_reserved,
    one_time_prekeys_max,
    one_time_prekeys_low,
    bundle_fetches_per_hour,
    lifetime_default_secs,
    lifetime_max_secs,
    mailbox_entries_max,
    request_queue_messages_max,
    request_queue_senders_max,
    event_window_bytes,
    event_window_entries,
    request_deadline_ms,
    handshake_ms,
    keepalive_ms,
    idle_timeout_ms,
    outbox_account_share,
    outbox_entries_max,
    rendezvous_blobs_max,
    rendezvous_blob_bytes_max,
    rendezvous_secs,
    candidate_connections_per_source,
    requests_per_second,
    resolve_links_max,
    link_bytes_max,
    clock_skew_ms,
    devices_max,
    outbox_age_max_secs,
    outbox_kept_secs,
    pending_after_ms,
    reconnect_base_ms,
    reconnect_max_ms,
    account_new_domains_per_hour,
    home_new_domains_per_minute,
    shared_new_domains_per_hour,
    group_batch_bytes_max,
    group_batch_records_max,
    group_kept_entries,
    group_kept_secs,
    group_pending_posts,
    group_offer_posts_max,
    group_hub_lost_ms,
    group_marks_ms,
    groups_per_account,
    group_invitations_per_hour,
    group_service_per_hour,
);

impl Limits {
    fn of(&self, name: &str) -> u64 {
        self.rows.get(name).map(|row| row.default).expect("accessors name registered limits; a test says so")
    }

    /// As [`usize`], for counts and sizes in memory.
    #[must_use]
    pub fn size(value: u64) -> usize {
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// Sets one limit.
    ///
    /// # Errors
    /// [`LimitError`] if it does not exist or the value is outside its range.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), LimitError> {
        let row = self.rows.get_mut(name).ok_or(LimitError::Unknown)?;
        if value < row.min || value > row.max {
            return Err(LimitError::Range(row.min, row.max));
        }
        row.default = value;
        Ok(())
    }

    /// What Welcome states, ascending by id.
    #[must_use]
    pub fn advertised(&self) -> Vec<pb::Limit> {
        let mut limits: Vec<pb::Limit> = self
            .rows
            .values()
            .filter(|row| row.advertised)
            .map(|row| pb::Limit { id: row.id, value: row.default })
            .collect();
        limits.sort_by_key(|limit| limit.id);
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accessor_names_a_registered_limit() {
        let limits = Limits::default();
        for name in NAMED {
            assert!(limits.rows.contains_key(*name), "{name}");
        }
    }

    #[test]
    fn a_value_outside_its_range_is_refused() {
        let mut limits = Limits::default();
        assert!(matches!(limits.set("pipelines_max", 0), Err(LimitError::Range(..))));
        assert_eq!(limits.set("no_such", 1), Err(LimitError::Unknown));
        assert_eq!(limits.set("requests_per_second", 1000), Ok(()));
        assert_eq!(limits.requests_per_second(), 1000);
    }

    #[test]
    fn advertised_limits_ascend() {
        assert!(Limits::default().advertised().is_sorted_by_key(|limit| limit.id));
    }
}
