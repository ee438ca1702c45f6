//! Tables for the text, in Markdown.
//!
//! Names: `frames`, `frames:STREAM`, `frame:NAME` (the card of one frame), `entries`, `entry:NAME`,
//! `links:server`, `links:account`, `errors`, `errors:SCOPE`, `limits`, `limits:advertised`, `limits:fixed`,
//! `capabilities`, `purposes`, `profiles`, `retired`.

use anyhow::{Context as _, bail};

use crate::registry::{Entry, Frame, Limit, Registry};

/// The lines between the markers of that name, each with its line end.
pub(super) fn table(registry: &Registry, name: &str) -> anyhow::Result<String> {
    let (kind, part) = name.split_once(':').unwrap_or((name, ""));
    let text = match (kind, part) {
        ("frames", part) => frames(registry, part),
        ("frame", part) => {
            let frame = registry.frames.iter().find(|frame| frame.name == part);
            frame_card(frame.context("no such frame")?)
        }
        ("entries", "") => entries(registry),
        ("entry", part) => {
            let entry = registry.entries.iter().find(|entry| entry.name == part);
            entry_card(entry.context("no such entry")?)
        }
        ("links", part) => links(registry, part),
        ("errors", part) => errors(registry, part),
        ("limits", "") => limits(registry, |_| true),
        ("limits", "advertised") => limits(registry, |limit| limit.advertised),
        ("limits", "fixed") => limits(registry, |limit| !limit.advertised),
        ("capabilities", "") => capabilities(registry),
        ("purposes", "") => purposes(registry),
        ("profiles", "") => profiles(registry),
        ("retired", "") => retired(registry),
        _ => bail!("there is no table of that name"),
    };
    if text.lines().count() <= 2 && kind != "retired" {
        bail!("the table would be empty");
    }
    Ok(text)
}

fn frames(registry: &Registry, stream: &str) -> String {
    let rows = registry.frames.iter().filter(|frame| stream.is_empty() || frame.stream == stream);
    let rows = rows.map(|frame| {
        vec![
            hex(frame.code),
            code(&frame.name),
            code(&frame.message),
            frame.sender.clone(),
            frame.stream.clone(),
            frame.state.clone(),
            optional(&frame.answer),
            frame.since.clone(),
            frame.doc.clone(),
        ]
    });
    let head = ["code", "name", "message", "sender", "stream", "state", "answer", "since", "what it is"];
    markdown(&head, rows)
}

fn frame_card(frame: &Frame) -> String {
    let rows = [
        ("code point", format!("{} ({})", hex(frame.code), weight(frame.code))),
        ("message", code(&frame.message)),
        ("sender", frame.sender.clone()),
        ("stream", frame.stream.clone()),
        ("states", frame.state.clone()),
        ("answer", optional(&frame.answer)),
        ("since", frame.since.clone()),
    ];
    card(&frame.name, rows)
}

fn entries(registry: &Registry) -> String {
    let rows = registry.entries.iter().map(|entry| {
        vec![
            hex(entry.code),
            code(&entry.name),
            code(&entry.message),
            entry.log.clone(),
            plain(&entry.key),
            entry.since.clone(),
            entry.doc.clone(),
        ]
    });
    markdown(&["code", "name", "message", "log", "key", "since", "what it is"], rows)
}

fn entry_card(entry: &Entry) -> String {
    let rows = [
        ("code point", format!("{} ({})", hex(entry.code), weight(entry.code))),
        ("message", code(&entry.message)),
        ("log", entry.log.clone()),
        ("key", plain(&entry.key)),
        ("since", entry.since.clone()),
    ];
    card(&entry.name, rows)
}

fn links(registry: &Registry, chain: &str) -> String {
    let mut links: Vec<_> = registry.links.iter().filter(|link| link.chain == chain).collect();
    links.sort_by_key(|link| link.code);
    let rows = links.into_iter().map(|link| {
        vec![
            hex(link.code),
            code(&link.name),
            format!("{} = {}", code(&link.field), link.field_number),
            link.signers.clone(),
            link.since.clone(),
            link.doc.clone(),
        ]
    });
    markdown(&["code", "name", "body field", "signers, in order", "since", "what it says"], rows)
}

fn errors(registry: &Registry, scope: &str) -> String {
    let rows = registry.errors.iter().filter(|error| scope.is_empty() || error.scope == scope);
    let rows = rows.map(|error| {
        vec![
            format!("0x{:02x}", error.code),
            code(&error.name),
            error.scope.clone(),
            error.retry.clone(),
            if error.show { "yes".to_owned() } else { "no".to_owned() },
            error.since.clone(),
            error.text.clone(),
            plain(&error.reqs.join(", ")),
        ]
    });
    let head = ["code", "name", "scope", "retry", "shown to people", "since", "sentence", "raised by"];
    markdown(&head, rows)
}

fn limits(registry: &Registry, wanted: impl Fn(&Limit) -> bool) -> String {
    let rows = registry.limits.iter().filter(|limit| wanted(limit)).map(|limit| {
        vec![
            limit.id.to_string(),
            code(&limit.name),
            grouped(limit.default),
            grouped(limit.min),
            grouped(limit.max),
            limit.unit.clone(),
            if limit.advertised { "yes".to_owned() } else { "no".to_owned() },
            optional(&limit.beyond),
            limit.since.clone(),
            limit.why.clone(),
        ]
    });
    let head =
        ["id", "name", "default", "minimum", "maximum", "unit", "advertised", "beyond it", "since", "why"];
    markdown(&head, rows)
}

fn capabilities(registry: &Registry) -> String {
    let rows = registry.capabilities.iter().map(|capability| {
        vec![
            hex(capability.code),
            code(&capability.name),
            weight(capability.code).to_owned(),
            capability.since.clone(),
            plain(&capability.sunset),
            capability.doc.clone(),
        ]
    });
    markdown(&["code", "name", "weight", "since", "sunset", "what it stands for"], rows)
}

fn purposes(registry: &Registry) -> String {
    let rows = registry.purposes.iter().map(|purpose| {
        vec![code(&purpose.name), purpose.usage.clone(), purpose.since.clone(), purpose.doc.clone()]
    });
    markdown(&["purpose", "use", "since", "what the bytes are"], rows)
}

fn profiles(registry: &Registry) -> String {
    let rows = registry
        .profiles
        .iter()
        .map(|profile| vec![code(&profile.name), profile.since.clone(), profile.doc.clone()]);
    markdown(&["profile", "since", "what it promises"], rows)
}

fn retired(registry: &Registry) -> String {
    if registry.retired.is_empty() {
        return "No requirement has been retired.\n".to_owned();
    }
    let rows = registry.retired.iter();
    let rows = rows.map(|retired| vec![retired.id.clone(), retired.since.clone(), retired.why.clone()]);
    markdown(&["id", "since", "why"], rows)
}

fn card<const N: usize>(name: &str, rows: [(&str, String); N]) -> String {
    markdown(&["", &code(name)], rows.into_iter().map(|(key, value)| vec![key.to_owned(), value]))
}

fn markdown(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut out = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    out
}

fn hex(value: u64) -> String {
    format!("0x{value:02x}")
}

fn code(word: &str) -> String {
    format!("`{word}`")
}

/// A name, or a dash where the registry has none.
fn optional(name: &str) -> String {
    if name.is_empty() { "–".to_owned() } else { code(name) }
}

/// A text, or a dash where the registry has none.
fn plain(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { text.to_owned() }
}

fn weight(code: u64) -> &'static str {
    if code.is_multiple_of(2) { "critical" } else { "ignorable" }
}

/// A number with a space between thousands.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(5), "5");
        assert_eq!(grouped(1000), "1 000");
        assert_eq!(grouped(1_048_576), "1 048 576");
    }
}
