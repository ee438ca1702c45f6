use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tidings_client::{AccountId, DeviceId, MessageId, State};

use crate::app::tests::{control, message, two};
use crate::app::{App, Link, Linking, Popup, Update};
use crate::composer::Composer;

const ME: AccountId = AccountId([1; 32]);
const BOB: AccountId = AccountId([2; 32]);

/// The screen as text, a line for each row.
fn screen(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            super::draw(frame, app);
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn assert_shows(app: &App, wanted: &[&str]) {
    let screen = screen(app, 80, 24);
    for wanted in wanted {
        assert!(screen.contains(wanted), "{wanted:?} is missing in\n{screen}");
    }
}

fn with(messages: Vec<tidings_client::Message>) -> App {
    let mut app = two();
    app.update(Update::History { account: BOB, messages, complete: true });
    app
}

#[test]
fn the_list_shows_requests_and_unread_counts_and_the_title_the_contact() {
    let mut app = two();
    assert_shows(
        &app,
        &["▌  bob@b.example", "+ eve@e.example", " 3 ", "· not verified: Ctrl-S", "● connected", "F1"],
    );
    app.conversations[0].contact.verified = true;
    assert_shows(&app, &["▌✓ bob@b.example", "✓ verified"]);
    app.conversations[0].contact.forked = true;
    assert_shows(&app, &["▌! bob@b.example", "nothing is sent"]);
}

#[test]
fn every_state_has_its_mark_and_a_failure_its_reason() {
    let states = [
        (State::Queued, "you … one"),
        (State::AcceptedByHome, "you ›  one"),
        (State::AcceptedByPeer, "you »  one"),
        (State::Delivered, "you ✓  one"),
        (State::Read, "you ✓✓ one"),
        (State::Failed, "you ✗  one"),
    ];
    for (state, shown) in states {
        let mut own = message(1, ME, BOB, "one");
        own.state = state;
        own.reason = (state == State::Failed).then(|| "no such account".to_owned());
        let shown = shown.replace("… one", "…  one");
        assert_shows(&with(vec![own]), &[&shown]);
    }
    let mut failed = message(1, ME, BOB, "one");
    failed.state = State::Failed;
    failed.reason = Some("no such account".to_owned());
    assert_shows(&with(vec![failed]), &["no such account"]);
}

#[test]
fn replies_quote_and_copies_name_their_device() {
    let mut reply = message(3, ME, BOB, "indeed");
    reply.reply_to = Some(MessageId([2; 16]));
    reply.device = DeviceId([0xab; 32]);
    let app = with(vec![message(2, BOB, BOB, "hello"), reply]);
    assert_shows(&app, &["┆ bob: hello", "indeed", "from your device abab"]);
    let mut orphan = message(3, ME, BOB, "indeed");
    orphan.reply_to = Some(MessageId([77; 16]));
    assert_shows(&with(vec![orphan]), &["┆ an earlier message"]);
}

#[test]
fn received_text_cannot_reach_the_terminal() {
    let app = with(vec![message(2, BOB, BOB, "\u{1b}[2Jhi\u{202e}evil\u{7}")]);
    assert_shows(&app, &["␛[2Jhi‹U+202E›evil␇"]);
    assert!(!screen(&app, 80, 24).contains('\u{1b}'));
}

#[test]
fn notes_days_and_wide_characters_have_their_place() {
    let mut app = with(vec![message(2, BOB, BOB, "日本語のテキスト")]);
    app.update(Update::Note { account: BOB, text: "messages 4 to 6 never came".to_owned() });
    assert_shows(&app, &["! messages 4 to 6 never came", "Nov 2026", "日"]);
}

#[test]
fn the_status_line_counts_down_and_says_why() {
    let mut app = two();
    app.now_ms = 1_000;
    app.update(Update::Link(Link::Waiting { reason: "timed out".to_owned(), until_ms: 3_500 }));
    assert_shows(&app, &["○ reconnecting in 3 s: timed out"]);
    app.update(Update::Link(Link::Halted { reason: "taken over".to_owned() }));
    assert_shows(&app, &["✗ stopped: taken over"]);
}

#[test]
fn the_safety_number_stands_in_groups_and_says_what_it_compares() {
    let mut app = two();
    control(&mut app, 's');
    let digits: Vec<String> = (0..12).map(|group| format!("{:05}", group * 1111)).collect();
    app.update(Update::Safety { account: BOB, digits: digits.join(" ") });
    let first = digits[..6].join("  ");
    let second = digits[6..].join("  ");
    assert_shows(&app, &[&first, &second, "not single devices", "not verified yet", "y: they agree"]);
}

#[test]
fn the_recovery_code_is_shown_whole_with_its_advice() {
    let mut app = two();
    let code = "0123456789abcdef".repeat(4);
    app.popup = Some(Popup::Recovery(code));
    assert_shows(&app, &["0123 4567 89ab cdef", "Write this down", "It is shown"]);
}

#[test]
fn scrolling_shows_older_lines_and_counts_those_below() {
    let messages = (1..=60).map(|seq| message(seq, BOB, BOB, &format!("line {seq}"))).collect();
    let mut app = with(messages);
    assert_shows(&app, &["line 60"]);
    app.drawn(100);
    crate::app::tests::press(&mut app, crossterm::event::KeyCode::PageUp);
    assert_shows(&app, &["line 50", "10 lines below"]);
    assert!(!screen(&app, 80, 24).contains("line 60"));
    control(&mut app, 'r');
    assert_shows(&app, &["line 60", "Enter answers"]);
}

#[test]
fn every_state_draws_on_every_size() {
    let mut app = two();
    app.update(Update::Note { account: BOB, text: "note".to_owned() });
    let mut popups = vec![
        None,
        Some(Popup::Help { scroll: 9 }),
        Some(Popup::Recovery("ab".repeat(32))),
        Some(Popup::New { input: Composer::from("x".repeat(90)), error: Some("e".to_owned()), busy: false }),
        Some(Popup::Safety { account: BOB, digits: None }),
        Some(Popup::Decide(BOB)),
        Some(Popup::Devices { devices: Some(vec![DeviceId([1; 32])]), selected: 0, removing: true }),
    ];
    let stages = [
        Linking::Asking,
        Linking::Code("x".repeat(90)),
        Linking::Digits("123456".to_owned()),
        Linking::Adding,
        Linking::Done(DeviceId([1; 32])),
        Linking::Failed("no".to_owned()),
    ];
    popups.extend(stages.map(|stage| Some(Popup::Linking(stage))));
    for popup in popups {
        app.popup = popup;
        for (width, height) in [(1, 1), (2, 3), (10, 2), (40, 10), (55, 4), (80, 24), (200, 60)] {
            screen(&app, width, height);
            screen(&crate::app::tests::app(), width, height);
        }
    }
    app.popup = None;
    app.paste(&"日本 ".repeat(100));
    for (width, height) in [(1, 1), (3, 9), (40, 10), (80, 24)] {
        screen(&app, width, height);
    }
    assert!(screen(&app, 40, 10).contains("1/2 bob@b.example"), "a narrow screen says where it is");
}
