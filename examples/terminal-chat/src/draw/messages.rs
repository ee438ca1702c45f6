//! The messages of a conversation, newest at the bottom, with notes and days between them.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use tidings_client::{Message, MessageId, State};

use super::{BAD, BOLD, DIM, GOOD, OWN, WARN};
use crate::app::{App, Chat};
use crate::clock;
use crate::text;

/// Characters of one message that are drawn; nobody reads more on a screen, and laying it out takes time.
const CHARACTERS: usize = 4_000;
/// Lines laid out beyond what is visible, so that scrolling finds some.
const BEYOND: usize = 60;
/// Columns a name may take.
const NAME: usize = 10;

/// A laid-out line, and the message it belongs to.
type Row<'a> = (Line<'a>, Option<MessageId>);

/// How far a message got, in two columns.
pub(super) fn glyph(state: State) -> (&'static str, Style) {
    match state {
        State::Queued => ("… ", DIM),
        State::AcceptedByHome => ("› ", DIM),
        State::AcceptedByPeer => ("» ", DIM),
        State::Delivered => ("✓ ", GOOD),
        State::Read => ("✓✓", GOOD),
        State::Failed => ("✗ ", BAD),
        State::Received => ("  ", DIM),
    }
}

/// Draws what fits; returns how many lines there are above.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, chat: &Chat, area: Rect) -> usize {
    let height = usize::from(area.height);
    let need = if chat.selected.is_some() { usize::MAX } else { height + chat.scroll.min(1 << 20) + BEYOND };
    let rows = rows(app, chat, usize::from(area.width), need);
    let scroll_max = rows.len().saturating_sub(height);
    let scroll = visible(&rows, chat, height).min(scroll_max);
    let top = rows.len().saturating_sub(height + scroll);
    let lines: Vec<Line<'_>> = rows
        .into_iter()
        .skip(top)
        .take(height)
        .map(|(line, id)| {
            let chosen = id.is_some() && id == chat.selected;
            if chosen { line.patch_style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
        })
        .collect();
    // A short conversation stands at the bottom, beside the text being typed.
    let blank = height.saturating_sub(lines.len());
    let lines: Vec<_> = std::iter::repeat_n(Line::default(), blank).chain(lines).collect();
    frame.render_widget(Paragraph::new(lines), area);
    scroll_max
}

/// The scrolling that is wished, or the least that shows the selected message.
fn visible(rows: &[Row<'_>], chat: &Chat, height: usize) -> usize {
    let Some(id) = chat.selected else { return chat.scroll };
    let at = |row: &Row<'_>| row.1 == Some(id);
    let (Some(first), Some(last)) = (rows.iter().position(at), rows.iter().rposition(at)) else {
        return chat.scroll;
    };
    let below = rows.len() - 1 - last;
    let above_most = (rows.len() - first).saturating_sub(height);
    chat.scroll.clamp(above_most.min(below), below.max(above_most))
}

/// Lays out from the newest message upwards until there are `need` rows or no more messages.
fn rows<'a>(app: &App, chat: &Chat, columns: usize, need: usize) -> Vec<Row<'a>> {
    let mut blocks: Vec<Vec<Row<'a>>> = Vec::new();
    let mut count = 0;
    let mut notes = chat.notes.iter().rev().peekable();
    for (at, message) in chat.messages.iter().enumerate().rev() {
        let mut block = Vec::new();
        let before = at.checked_sub(1).and_then(|at| chat.messages.get(at));
        let day = clock::day(message.sent_at_ms);
        if before.is_none_or(|before| clock::day(before.sent_at_ms) != day) {
            block.push((Line::styled(center(&day, columns), DIM), None));
        }
        block.extend(message_rows(app, chat, message, columns));
        let mut behind = Vec::new();
        while let Some(note) = notes.next_if(|note| note.after >= message.seq) {
            behind.push(note_rows(&note.text, columns));
        }
        block.extend(behind.into_iter().rev().flatten());
        count += block.len();
        blocks.push(block);
        if count >= need {
            return blocks.into_iter().rev().flatten().collect();
        }
    }
    let first: Vec<Row<'a>> = notes.rev().flat_map(|note| note_rows(&note.text, columns)).collect();
    let first = if chat.messages.is_empty() && first.is_empty() {
        vec![(Line::styled(center("nothing was said here yet", columns), DIM), None)]
    } else {
        first
    };
    first.into_iter().chain(blocks.into_iter().rev().flatten()).collect()
}

fn center(text: &str, columns: usize) -> String {
    let text = text::cut(text, columns);
    format!("{}{text}", " ".repeat((columns - text::width(&text)) / 2))
}

fn note_rows<'a>(note: &str, columns: usize) -> Vec<Row<'a>> {
    let lines = text::wrap(&text::clean_line(note), columns.saturating_sub(4));
    lines.into_iter().map(|line| (Line::styled(format!("  ! {line}"), WARN), None)).collect()
}

/// Who wrote it, short: the user part, or "you".
fn author(app: &App, message: &Message) -> String {
    if message.sender == app.me.account {
        return "you".to_owned();
    }
    let name = app.name(message.sender);
    name.split('@').next().unwrap_or_default().to_owned()
}

/// The line that stands for a message that is answered.
pub(super) fn quote(app: &App, chat: &Chat, of: Option<MessageId>) -> String {
    match of.and_then(|id| chat.message(id)) {
        Some(message) => {
            let text: String = message.text.chars().take(CHARACTERS / 10).collect();
            format!("{}: {}", author(app, message), text::clean_line(&text))
        }
        None => "an earlier message".to_owned(),
    }
}

fn message_rows<'a>(app: &App, chat: &Chat, message: &Message, columns: usize) -> Vec<Row<'a>> {
    let own = message.sender == app.me.account;
    let other = app.name(message.conversation);
    let name_columns = text::width(other.split('@').next().unwrap_or_default()).clamp(3, NAME);
    let indent = 5 + 1 + name_columns + 1 + 3;
    let indent = if columns < indent + 16 { 3 } else { indent };
    let room = columns.saturating_sub(indent);
    let mut body: Vec<Line<'a>> = Vec::new();
    if message.reply_to.is_some() {
        let quoted = quote(app, chat, message.reply_to);
        body.push(Line::styled(text::cut(&format!("┆ {quoted}"), room), DIM));
    }
    body.extend(text::wrap(&shown(&message.text), room).into_iter().map(Line::from));
    if own && message.device != app.me.device {
        body.push(Line::styled(
            text::cut(&format!("from your device {}", text::short(message.device)), room),
            DIM,
        ));
    }
    if let Some(reason) = &message.reason {
        let style = if message.state == State::Failed { BAD } else { DIM };
        body.extend(
            text::wrap(&text::clean_line(reason), room).into_iter().map(|line| Line::styled(line, style)),
        );
    }
    let (mark, mark_style) = glyph(message.state);
    let head = vec![
        Span::styled(format!("{} ", clock::hour_minute(message.sent_at_ms)), DIM),
        Span::styled(
            format!("{} ", text::pad(&author(app, message), name_columns)),
            if own { OWN } else { BOLD },
        ),
        Span::styled(format!("{mark} "), mark_style),
    ];
    let mut rows = Vec::new();
    let narrow = indent == 3;
    if narrow {
        rows.push((Line::from(head.clone()), Some(message.id)));
    }
    for (at, line) in body.into_iter().enumerate() {
        let mut spans = if at == 0 && !narrow { head.clone() } else { vec![Span::raw(" ".repeat(indent))] };
        let style = line.style;
        spans.extend(line.spans.into_iter().map(|span| span.patch_style(style)));
        rows.push((Line::from(spans), Some(message.id)));
    }
    rows
}

/// The text as it may be drawn, not more than a person reads.
fn shown(message: &str) -> String {
    let mut text: String = message.chars().take(CHARACTERS).collect();
    let left = message.chars().skip(CHARACTERS).count();
    if left > 0 {
        text.push_str(&format!("… ({left} characters more)"));
    }
    text::clean(&text)
}
