//! Lines out.

use std::io::Write as _;

use tidings_client::{Contact, Message, Standing, State};

use crate::clock;
use crate::settings::escape;
use crate::text;

/// Prints one line of fields. An empty field is `-`.
pub(super) fn line(fields: &[&str]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", format(fields))?;
    Ok(out.flush()?)
}

fn format(fields: &[&str]) -> String {
    let field = |field: &&str| if field.is_empty() { "-".to_owned() } else { escape(&text::clean(field)) };
    fields.iter().map(field).collect::<Vec<_>>().join("\t")
}

/// The word for a state.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Queued => "queued",
        State::AcceptedByHome => "accepted",
        State::AcceptedByPeer => "at-peer",
        State::Delivered => "delivered",
        State::Read => "read",
        State::Failed => "failed",
        State::Received => "received",
    }
}

/// A contact, as the answer to a command.
pub(super) fn contact(kind: &str, contact: &Contact, unread: u64) -> anyhow::Result<()> {
    let standing = match contact.standing {
        Standing::Undecided => "undecided",
        Standing::Accepted => "accepted",
        Standing::Blocked => "blocked",
    };
    let verified = if contact.verified { "verified" } else { "unverified" };
    let (address, account) = (contact.address.to_string(), contact.account.to_string());
    line(&[kind, &address, standing, verified, &unread.to_string(), &account])
}

/// A message that came; `reply_to` is the number of the one it answers.
pub(super) fn message(kind: &str, message: &Message, address: &str, reply_to: &str) -> anyhow::Result<()> {
    let (seq, at) = (message.seq.to_string(), clock::stamp(message.sent_at_ms));
    line(&[kind, &seq, address, &at, reply_to, &message.text])
}

/// A message of before.
pub(super) fn history(message: &Message, address: &str, reply_to: &str) -> anyhow::Result<()> {
    let who = if message.sender == message.conversation { "them" } else { "me" };
    let (seq, at) = (message.seq.to_string(), clock::stamp(message.sent_at_ms));
    line(&["history", &seq, address, who, state(message.state), &at, reply_to, &message.text])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_never_breaks_its_line_or_column() {
        assert_eq!(format(&["message", "a\nb\\c", "", "\u{1b}[1m"]), "message\ta\\nb\\\\c\t-\t␛[1m");
        assert!(!format(&["x\ty\r\nz"]).contains(['\t', '\n', '\r']));
    }
}
