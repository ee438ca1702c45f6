//! The screen: conversations at the left, messages, the text being typed, and a status line.
//!
//! Draws any state on any size. Whatever somebody else wrote passes `text::clean` here.

mod messages;
mod popups;
#[cfg(test)]
mod tests;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use tidings_client::Standing;
use tidings_client::store::messages::Conversation;

use crate::app::{App, Chat, Link};
use crate::text;

/// Narrower than this there is no list: the title says which of how many.
const LIST_FROM: u16 = 56;
/// Rows the text being typed may take.
const COMPOSER_ROWS: usize = 6;

pub(crate) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
pub(crate) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
pub(crate) const WARN: Style = Style::new().fg(Color::Yellow);
pub(crate) const BAD: Style = Style::new().fg(Color::Red);
pub(crate) const GOOD: Style = Style::new().fg(Color::Green);
pub(crate) const OWN: Style = Style::new().fg(Color::Cyan);

/// Draws everything. Returns how many lines the messages can be scrolled up.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App) -> usize {
    let [body, status] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    draw_status(frame, app, status);
    let wide = body.width >= LIST_FROM;
    let list = if wide { (body.width / 3).clamp(20, 34) } else { 0 };
    let [left, right] = Layout::horizontal([Constraint::Length(list), Constraint::Min(0)]).areas(body);
    if wide {
        draw_list(frame, app, left);
    }
    let scroll_max = draw_chat(frame, app, right, !wide);
    if let Some(popup) = &app.popup {
        popups::draw(frame, app, popup, body);
    }
    scroll_max
}

fn draw_status(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let (style, link) = match &app.link {
        Link::Connecting => (WARN, "○ connecting".to_owned()),
        Link::Connected => (GOOD, "● connected".to_owned()),
        Link::Waiting { reason, until_ms } => {
            let secs = until_ms.saturating_sub(app.now_ms).div_ceil(1000);
            let when = if secs == 0 { "…".to_owned() } else { format!("in {secs} s") };
            (WARN, format!("○ reconnecting {when}: {}", text::clean_line(reason)))
        }
        Link::Halted { reason } => (BAD, format!("✗ stopped: {}", text::clean_line(reason))),
    };
    let mut spans = vec![Span::styled(format!(" {link} "), style)];
    match &app.said {
        Some(said) => spans.push(Span::styled(format!("· {}", text::clean_line(said)), WARN)),
        None => spans.push(Span::styled(format!("· {}", app.me.address), DIM)),
    }
    let help = " F1 help ";
    let used: usize = spans.iter().map(Span::width).sum();
    let room = usize::from(area.width).saturating_sub(used + text::width(help));
    if room > 0 {
        spans.push(Span::raw(" ".repeat(room)));
        spans.push(Span::styled(help, DIM));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn draw_list(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let block = Block::new().borders(Borders::RIGHT).border_style(DIM);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let columns = usize::from(inner.width);
    let mut lines = vec![Line::styled(text::pad(" Conversations", columns), BOLD)];
    // The open one stays in view.
    let rows = usize::from(inner.height).saturating_sub(1);
    let open = app.conversations.iter().position(|line| Some(line.contact.account) == app.open).unwrap_or(0);
    let first = (open + 1).saturating_sub(rows);
    lines.extend(app.conversations.iter().skip(first).map(|summary| list_line(app, summary, columns)));
    if app.conversations.is_empty() {
        lines.push(Line::styled(" Ctrl-N begins one", DIM));
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

fn list_line<'a>(app: &App, summary: &Conversation, columns: usize) -> Line<'a> {
    let contact = &summary.contact;
    let open = app.open == Some(contact.account);
    let draft = !open && app.chats.get(&contact.account).is_some_and(|chat| !chat.draft.is_empty());
    let count = match summary.unread {
        0 if draft => "✎ ".to_owned(),
        0 => String::new(),
        unread => format!("{} ", unread.min(999)),
    };
    let name = text::pad(&contact.address.to_string(), columns.saturating_sub(4 + text::width(&count)));
    let style = match contact.standing {
        _ if open => BOLD.add_modifier(Modifier::REVERSED),
        Standing::Blocked => DIM,
        _ if summary.unread > 0 => BOLD,
        _ => Style::new(),
    };
    let (mark, mark_style) = mark(summary);
    Line::from(vec![
        Span::styled(if open { "▌" } else { " " }, OWN),
        Span::styled(format!("{mark} "), mark_style),
        Span::styled(name, style),
        Span::styled(format!(" {count}"), OWN),
    ])
}

/// The one mark that matters most.
fn mark(summary: &Conversation) -> (&'static str, Style) {
    let contact = &summary.contact;
    match contact.standing {
        _ if contact.forked => ("!", BAD),
        Standing::Blocked => ("⊘", DIM),
        Standing::Undecided if summary.last.is_some() => ("+", WARN),
        _ if contact.verified => ("✓", GOOD),
        _ => (" ", Style::new()),
    }
}

fn draw_chat(frame: &mut Frame<'_>, app: &App, area: Rect, narrow: bool) -> usize {
    let Some((summary, chat)) = app.summary().zip(app.chat()) else {
        draw_empty(frame, area);
        return 0;
    };
    let columns = usize::from(area.width);
    let (rows, cursor) = chat.draft.rows(columns.saturating_sub(3));
    let shown = rows.len().min(COMPOSER_ROWS).min(usize::from(area.height / 3).max(1));
    let reply = u16::from(chat.reply_to.is_some());
    let request = u16::from(summary.contact.standing == Standing::Undecided && summary.last.is_some());
    let composer = u16::try_from(shown).unwrap_or(1);
    let constraints = [
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(request),
        Constraint::Length(1),
        Constraint::Length(reply),
        Constraint::Length(composer),
    ];
    let [title, messages, banner, rule, quote, input] = Layout::vertical(constraints).areas(area);
    frame.render_widget(Paragraph::new(title_line(app, summary, narrow, columns)), title);
    // A column of air beside the list's border.
    let margin = u16::from(!narrow).min(messages.width);
    let messages = Rect { x: messages.x + margin, width: messages.width - margin, ..messages };
    let scroll_max = messages::draw(frame, app, chat, messages);
    if request == 1 {
        let text = " + a request: Ctrl-A accepts, dismisses or blocks";
        frame.render_widget(Paragraph::new(Line::styled(text::pad(text, columns), WARN)), banner);
    }
    frame.render_widget(Paragraph::new(Line::styled(rule_text(chat, columns), DIM)), rule);
    if reply == 1 {
        let quoted = messages::quote(app, chat, chat.reply_to);
        let text = text::cut(&format!(" ┆ {quoted}"), columns);
        frame.render_widget(Paragraph::new(Line::styled(text, OWN)), quote);
    }
    let top = (cursor.0 + 1).saturating_sub(shown);
    let lines = rows.iter().skip(top).take(shown).enumerate();
    let prompt = |at: usize| if at + top == 0 { "> " } else { "  " };
    let lines: Vec<_> = lines.map(|(at, row)| Line::from(format!("{}{row}", prompt(at)))).collect();
    frame.render_widget(Paragraph::new(lines), input);
    if app.popup.is_none() && chat.selected.is_none() && input.height > 0 {
        let at = |offset: usize, start: u16, length: u16| {
            start.saturating_add(u16::try_from(offset).unwrap_or(0).min(length.saturating_sub(1)))
        };
        let x = at(cursor.1 + 2, input.x, input.width);
        frame.set_cursor_position(Position::new(x, at(cursor.0 - top, input.y, input.height)));
    }
    scroll_max
}

fn rule_text(chat: &Chat, columns: usize) -> String {
    let hint = if chat.selected.is_some() {
        " ↑ ↓ choose, Enter answers, Esc gives up ".to_owned()
    } else if chat.scroll > 0 {
        format!(" {} lines below ", chat.scroll)
    } else {
        String::new()
    };
    let hint = text::cut(&hint, columns);
    format!("{}{hint}", "─".repeat(columns.saturating_sub(text::width(&hint))))
}

fn title_line<'a>(app: &App, summary: &Conversation, narrow: bool, columns: usize) -> Line<'a> {
    let contact = &summary.contact;
    let mut title = format!(" {}", contact.address);
    if narrow {
        let at =
            app.conversations.iter().position(|line| Some(line.contact.account) == app.open).unwrap_or(0);
        let unread: u64 = app.conversations.iter().map(|line| line.unread).sum();
        let elsewhere = unread.saturating_sub(summary.unread);
        title = format!(" {}/{}{title}", at + 1, app.conversations.len());
        if elsewhere > 0 {
            title = format!("{title} ({elsewhere} unread elsewhere)");
        }
    }
    let (word, style) = match contact.standing {
        _ if contact.forked => (" ! two histories seen, nothing is sent", BAD),
        Standing::Blocked => (" ⊘ blocked", DIM),
        Standing::Undecided => ("", DIM),
        Standing::Accepted if contact.verified => (" ✓ verified", GOOD),
        Standing::Accepted => (" · not verified: Ctrl-S", DIM),
    };
    let title = text::cut(&title, columns);
    let word = text::cut(word, columns.saturating_sub(text::width(&title)));
    Line::from(vec![Span::styled(title, BOLD), Span::styled(word, style)])
}

fn draw_empty(frame: &mut Frame<'_>, area: Rect) {
    let lines = vec![
        Line::from(""),
        Line::styled(" Nobody here yet.", BOLD),
        Line::from(""),
        Line::from(" Ctrl-N  write to somebody"),
        Line::from(" F1      all keys"),
        Line::from(" Ctrl-C  quit"),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}
