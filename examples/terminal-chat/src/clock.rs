//! The clock of this program, and moments as a person reads them.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Local, SecondsFormat, Utc};

/// Now, Unix milliseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "the program's driver owns the clock; everything else is told the time"
)]
pub(crate) fn now_ms() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

fn utc(ms: u64) -> DateTime<Utc> {
    i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// Hour and minute of the local time.
pub(crate) fn hour_minute(ms: u64) -> String {
    utc(ms).with_timezone(&Local).format("%H:%M").to_string()
}

/// The day of the local time.
pub(crate) fn day(ms: u64) -> String {
    utc(ms).with_timezone(&Local).format("%a %-d %b %Y").to_string()
}

/// A moment for programs: RFC 3339 in UTC, with milliseconds.
pub(crate) fn stamp(ms: u64) -> String {
    utc(ms).to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_utc_and_impossible_times_are_the_epoch() {
        assert_eq!(stamp(1_795_000_000_123), "2026-11-18T11:06:40.123Z");
        assert_eq!(stamp(u64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
