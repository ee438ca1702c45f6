//! The small windows.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Padding, Paragraph};
use tidings_client::{DeviceId, Standing};

use super::{BAD, BOLD, DIM, GOOD, OWN, WARN};
use crate::app::{App, Linking, Popup, help};
use crate::composer::Composer;
use crate::text;

/// Columns of text in a popup.
const COLUMNS: u16 = 58;
/// The same where something has to be copied in one piece.
const WIDE: u16 = 76;

/// A popup's text: title, lines, and the key line at its foot.
struct Content<'a> {
    title: &'a str,
    lines: Vec<Line<'a>>,
    keys: &'a str,
    scroll: u16,
    /// Row and column of the cursor, if something is typed.
    cursor: Option<(u16, u16)>,
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, popup: &Popup, area: Rect) {
    let wish = if matches!(popup, Popup::Linking(Linking::Code(_))) { WIDE } else { COLUMNS };
    let window = wish.saturating_add(4).min(area.width);
    let columns = usize::from(window.saturating_sub(4));
    let content = match popup {
        Popup::Help { scroll } => help_content(*scroll),
        Popup::Recovery(code) => recovery(code, columns),
        Popup::New { input, error, busy } => new(input, error.as_deref(), *busy, columns),
        Popup::Safety { account, digits } => {
            let verified = app.summary_of(*account).is_some_and(|summary| summary.contact.verified);
            safety(&app.name(*account), digits.as_deref(), verified, columns)
        }
        Popup::Decide(account) => {
            let standing = app.summary_of(*account).map(|summary| summary.contact.standing);
            decide(&app.name(*account), standing, columns)
        }
        Popup::Devices { devices, selected, removing } => {
            self::devices(app.me.device, devices.as_deref(), *selected, *removing, columns)
        }
        Popup::Linking(stage) => linking(stage, columns),
    };
    show(frame, content, window, area);
}

fn show(frame: &mut Frame<'_>, content: Content<'_>, width: u16, area: Rect) {
    let text_rows = u16::try_from(content.lines.len()).unwrap_or(u16::MAX);
    let height = text_rows.saturating_add(2).min(area.height);
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let window = Rect { x, y, width, height };
    let keys = text::cut(&format!(" {} ", content.keys), usize::from(width.saturating_sub(4)));
    let block = Block::bordered()
        .title(Line::styled(format!(" {} ", content.title), BOLD))
        .title_bottom(Line::styled(keys, DIM))
        .padding(Padding::horizontal(1));
    let inner = block.inner(window);
    let scroll = content.scroll.min(text_rows.saturating_sub(inner.height));
    frame.render_widget(Clear, window);
    frame.render_widget(Paragraph::new(content.lines).block(block).scroll((scroll, 0)), window);
    if let Some((row, column)) = content.cursor.filter(|_| inner.width > 0 && inner.height > 0) {
        let x = inner.x.saturating_add(column.min(inner.width - 1));
        frame.set_cursor_position(Position::new(x, inner.y.saturating_add(row.min(inner.height - 1))));
    }
}

fn content<'a>(title: &'a str, lines: Vec<Line<'a>>, keys: &'a str) -> Content<'a> {
    Content { title, lines, keys, scroll: 0, cursor: None }
}

fn paragraph<'a>(text: &str, columns: usize, style: Style) -> impl Iterator<Item = Line<'a>> {
    text::wrap(text, columns).into_iter().map(move |line| Line::styled(line, style))
}

fn help_content<'a>(scroll: u16) -> Content<'a> {
    let line = |&(key, what): &(&'static str, &'static str)| {
        if key.is_empty() {
            Line::styled(what, BOLD)
        } else {
            Line::from(vec![Span::styled(text::pad(key, 15), OWN), Span::raw(what)])
        }
    };
    let lines = help().iter().map(line).collect();
    Content { scroll, ..content("Help", lines, "↑ ↓ scroll, any other key closes") }
}

fn recovery<'a>(code: &str, columns: usize) -> Content<'a> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    lines.extend(paragraph("Write this down and keep it away from this computer:", columns, BOLD));
    lines.push(Line::default());
    lines.extend(groups(code, columns).into_iter().map(|line| Line::styled(line, OWN)));
    lines.push(Line::default());
    let why = "Should all your devices be lost, it alone gets the account back, and whoever has it can take the \
               account. It is shown this once.";
    lines.extend(paragraph(why, columns, Style::new()));
    content("Recovery code", lines, "Enter: I have written it down")
}

/// Characters in groups of four, as many to a line as fit.
fn groups(code: &str, columns: usize) -> Vec<String> {
    let characters: Vec<char> = code.chars().collect();
    let groups: Vec<String> = characters.chunks(4).map(|group| group.iter().collect()).collect();
    let per_line = (columns / 5).clamp(1, 8);
    groups.chunks(per_line).map(|line| line.join(" ")).collect()
}

fn new<'a>(input: &Composer, error: Option<&str>, busy: bool, columns: usize) -> Content<'a> {
    let (rows, (row, column)) = input.rows(columns.saturating_sub(2));
    let mut lines = vec![Line::styled("Whom do you want to write to?", BOLD), Line::default()];
    let top = lines.len();
    lines.extend(rows.iter().map(|row| Line::from(format!("> {row}"))));
    lines.push(Line::default());
    match (busy, error) {
        (true, _) => lines.push(Line::styled("asking the home of that address …", WARN)),
        (false, Some(error)) => lines.extend(paragraph(&text::clean_line(error), columns, BAD)),
        (false, None) => lines.push(Line::styled("an address, such as bob@b.example", DIM)),
    }
    let cursor = u16::try_from(top + row).ok().zip(u16::try_from(column + 2).ok());
    Content { cursor, ..content("New conversation", lines, "Enter: look up, Esc: close") }
}

fn safety<'a>(name: &str, digits: Option<&str>, verified: bool, columns: usize) -> Content<'a> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    let what = format!("Compare with {name}, in person or by a call: they see the same digits.");
    lines.extend(paragraph(&what, columns, Style::new()));
    lines.push(Line::default());
    match digits {
        Some(digits) => {
            let groups: Vec<&str> = digits.split_whitespace().collect();
            let per_line = if columns >= 40 { 6 } else { 4 };
            lines.extend(
                groups.chunks(per_line).map(|line| Line::styled(format!("  {}", line.join("  ")), BOLD)),
            );
        }
        None => lines.push(Line::styled("computing …", DIM)),
    }
    lines.push(Line::default());
    let scope =
        "It compares the two accounts, not single devices: it stays the same when one of you adds a device.";
    lines.extend(paragraph(scope, columns, DIM));
    lines.push(Line::default());
    lines.push(if verified {
        Line::styled("✓ marked as verified", GOOD)
    } else {
        Line::styled("not verified yet", WARN)
    });
    content("Safety number", lines, "y: they agree, n: not verified, Esc: close")
}

fn decide<'a>(name: &str, standing: Option<Standing>, columns: usize) -> Content<'a> {
    let key = |key: &'static str, what: &'static str| {
        Line::from(vec![
            Span::styled(text::pad(key, 4), OWN),
            Span::raw(text::cut(what, columns.saturating_sub(4))),
        ])
    };
    let mut lines: Vec<Line<'a>> = Vec::new();
    match standing {
        Some(Standing::Undecided) => {
            lines.extend(paragraph(&format!("{name} asks to write to you."), columns, BOLD));
            lines.push(Line::default());
            lines.push(key("a", "accept: a contact from now on"));
            lines.push(key("d", "dismiss: the request goes; they may ask again"));
            lines.push(key("b", "block: they are not told, and reach you no more"));
            lines.push(Line::default());
            lines.extend(paragraph(
                "Until you accept they do not see what arrived or was read.",
                columns,
                DIM,
            ));
        }
        Some(Standing::Blocked) => {
            lines.extend(paragraph(&format!("{name} is blocked."), columns, BOLD));
            lines.push(Line::default());
            lines.push(key("u", "end the block"));
        }
        _ => {
            lines.extend(paragraph(&format!("{name} is a contact."), columns, BOLD));
            lines.push(Line::default());
            lines.push(key("b", "block: they are not told, and reach you no more"));
        }
    }
    content("What to do", lines, "Esc: nothing")
}

fn devices<'a>(
    own: DeviceId,
    devices: Option<&[DeviceId]>,
    selected: usize,
    removing: bool,
    columns: usize,
) -> Content<'a> {
    let Some(devices) = devices else {
        return content("Your devices", vec![Line::styled("asking …", DIM)], "Esc: close");
    };
    let mut lines: Vec<Line<'a>> = Vec::new();
    for (at, device) in devices.iter().enumerate() {
        let id = text::short(device);
        let this = if *device == own { "  this device" } else { "" };
        let style = if at == selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        lines.push(Line::styled(text::pad(&format!(" {id}{this}"), columns), style));
    }
    if removing {
        lines.push(Line::default());
        let question = "Remove it? It gets no message from then on, and cannot come back. y / n";
        lines.extend(paragraph(question, columns, BAD));
    }
    content("Your devices", lines, "l: link a new one, r: remove, Esc: close")
}

fn linking<'a>(stage: &Linking, columns: usize) -> Content<'a> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    let keys = match stage {
        Linking::Asking => {
            lines.push(Line::styled("asking the home for a place to meet …", DIM));
            "Esc: give up"
        }
        Linking::Code(code) => {
            lines.extend(paragraph(
                "Run on the new device, and keep the code to yourself:",
                columns,
                Style::new(),
            ));
            lines.push(Line::default());
            lines.push(Line::from("terminal-chat join"));
            lines.extend(paragraph(code, columns, OWN));
            lines.push(Line::default());
            lines.push(Line::styled("waiting for it …", DIM));
            "Esc: give up"
        }
        Linking::Digits(digits) => {
            lines.extend(paragraph("Does the new device show the same six digits?", columns, Style::new()));
            lines.push(Line::default());
            lines.push(Line::styled(format!("  {digits}"), BOLD));
            lines.push(Line::default());
            lines.extend(paragraph("If not, somebody else read the code: say no.", columns, DIM));
            "y: the same, n: not"
        }
        Linking::Adding => {
            lines.push(Line::styled("adding it to the account …", DIM));
            "Esc: close"
        }
        Linking::Done(device) => {
            let id = text::short(device);
            lines.extend(paragraph(&format!("The device {id} belongs to the account now."), columns, GOOD));
            "Enter: close"
        }
        Linking::Failed(reason) => {
            lines.extend(paragraph(&text::clean_line(reason), columns, BAD));
            "Enter: close"
        }
    };
    content("Link a new device", lines, keys)
}
