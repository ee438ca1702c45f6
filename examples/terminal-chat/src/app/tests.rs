use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tidings_client::{AccountId, Contact, DeviceId, Message, MessageId, Standing, State};

use super::*;

const ME: AccountId = AccountId([1; 32]);
const BOB: AccountId = AccountId([2; 32]);
const EVE: AccountId = AccountId([3; 32]);

pub(crate) fn app() -> App {
    let me = Me { account: ME, device: DeviceId([9; 32]), address: "alice@a.example".parse().unwrap() };
    App::new(me, BTreeMap::new(), 0)
}

pub(crate) fn contact(account: AccountId, address: &str, standing: Standing) -> Contact {
    Contact {
        account,
        address: address.parse().unwrap(),
        standing,
        verified: false,
        forked: false,
        lifetime_secs: 0,
    }
}

pub(crate) fn message(seq: u8, from: AccountId, with: AccountId, text: &str) -> Message {
    Message {
        seq: u64::from(seq),
        id: MessageId([seq; 16]),
        conversation: with,
        sender: from,
        device: DeviceId([if from == ME { 9 } else { 8 }; 32]),
        text: text.to_owned(),
        reply_to: None,
        sent_at_ms: 1_795_000_000_000 + 1000 * u64::from(seq),
        number: u64::from(seq),
        own_number: u64::from(seq),
        lifetime_secs: 0,
        state: if from == ME { State::Queued } else { State::Received },
        reason: None,
    }
}

/// Bob, a contact with one unread message, and Eve, who asks; Bob is open and connected.
pub(crate) fn two() -> App {
    let mut app = app();
    app.update(Update::Link(Link::Connected));
    let bob = Conversation {
        contact: contact(BOB, "bob@b.example", Standing::Accepted),
        unread: 1,
        last: Some(message(2, BOB, BOB, "hello")),
    };
    let eve = Conversation {
        contact: contact(EVE, "eve@e.example", Standing::Undecided),
        unread: 3,
        last: Some(message(1, EVE, EVE, "psst")),
    };
    app.update(Update::Conversations(vec![eve, bob]));
    let messages = vec![message(2, BOB, BOB, "hello")];
    app.update(Update::History { account: BOB, messages, complete: true });
    app
}

pub(crate) fn press(app: &mut App, code: KeyCode) -> Vec<Command> {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

pub(crate) fn control(app: &mut App, letter: char) -> Vec<Command> {
    app.key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL))
}

fn type_in(app: &mut App, text: &str) {
    for c in text.chars() {
        assert_eq!(press(app, KeyCode::Char(c)), vec![]);
    }
}

fn draft(app: &App) -> &str {
    app.chat().map_or("", |chat| chat.draft.text())
}

#[test]
fn the_newest_conversation_opens_and_is_read_once() {
    let mut app = app();
    app.update(Update::Link(Link::Connected));
    let summary = |seq, unread| Conversation {
        contact: contact(BOB, "bob@b.example", Standing::Accepted),
        unread,
        last: Some(message(seq, BOB, BOB, "x")),
    };
    let commands = app.update(Update::Conversations(vec![summary(1, 1)]));
    assert!(commands.contains(&Command::Open { account: BOB, limit: PAGE }));
    assert!(commands.contains(&Command::MarkRead(BOB)));
    assert_eq!(app.update(Update::Conversations(vec![summary(1, 1)])), vec![], "said already");
    assert_eq!(app.update(Update::Conversations(vec![summary(2, 1)])), vec![Command::MarkRead(BOB)]);
}

#[test]
fn nothing_is_read_out_of_sight() {
    let mut app = two();
    app.focus(false);
    let again = |app: &mut App| {
        let mut summaries = app.conversations.clone();
        for summary in &mut summaries {
            summary.last.as_mut().unwrap().seq += 10;
        }
        app.update(Update::Conversations(summaries))
    };
    assert_eq!(again(&mut app), vec![]);
    assert_eq!(app.focus(true), vec![Command::MarkRead(BOB)]);
    assert_eq!(app.focus(true), vec![], "said already");
    app.drawn(50);
    press(&mut app, KeyCode::PageUp);
    assert_eq!(again(&mut app), vec![], "the newest is below the screen");
    assert_eq!(press(&mut app, KeyCode::PageDown), vec![Command::MarkRead(BOB)]);
}

#[test]
fn enter_sends_what_was_typed_and_an_empty_line_sends_nothing() {
    let mut app = two();
    type_in(&mut app, "hi 日本");
    let sent = Command::Send { to: BOB, text: "hi 日本".to_owned(), reply_to: None };
    assert_eq!(press(&mut app, KeyCode::Enter), vec![sent]);
    assert_eq!(draft(&app), "");
    type_in(&mut app, "  ");
    assert_eq!(press(&mut app, KeyCode::Enter), vec![]);
}

#[test]
fn alt_enter_begins_a_line_and_a_paste_is_one_piece() {
    let mut app = two();
    type_in(&mut app, "a");
    app.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::ALT));
    app.paste("b\r\nc");
    assert_eq!(draft(&app), "a\nb\nc");
}

#[test]
fn drafts_stay_with_their_conversation_and_through_a_lost_connection() {
    let mut app = two();
    type_in(&mut app, "for bob");
    press(&mut app, KeyCode::Tab);
    assert_eq!(app.open, Some(EVE));
    assert_eq!(draft(&app), "");
    type_in(&mut app, "for eve");
    app.update(Update::Link(Link::Waiting { reason: "gone".to_owned(), until_ms: 5 }));
    assert_eq!(draft(&app), "for eve");
    press(&mut app, KeyCode::BackTab);
    assert_eq!(draft(&app), "for bob");
    let kept = BTreeMap::from([(BOB, "for bob".to_owned()), (EVE, "for eve".to_owned())]);
    assert_eq!(app.drafts(), kept);
    assert_eq!(App::new(app.me.clone(), kept.clone(), 0).drafts(), kept);
}

#[test]
fn a_text_that_could_not_be_stored_comes_back_before_what_was_typed_since() {
    let mut app = two();
    type_in(&mut app, "since");
    let lost = Update::NotSent { to: BOB, text: "lost".to_owned(), reason: "no".to_owned() };
    app.update(lost);
    assert_eq!(draft(&app), "lost\nsince");
    assert!(app.said.as_deref().unwrap().contains("no"));
}

#[test]
fn a_reply_names_the_chosen_message_and_esc_gives_it_up() {
    let mut app = two();
    let messages = vec![message(1, BOB, BOB, "one"), message(2, BOB, BOB, "two")];
    app.update(Update::History { account: BOB, messages, complete: true });
    control(&mut app, 'r');
    press(&mut app, KeyCode::Up);
    press(&mut app, KeyCode::Up);
    press(&mut app, KeyCode::Enter);
    type_in(&mut app, "yes");
    let sent = Command::Send { to: BOB, text: "yes".to_owned(), reply_to: Some(MessageId([1; 16])) };
    assert_eq!(press(&mut app, KeyCode::Enter), vec![sent]);
    control(&mut app, 'r');
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.chat().unwrap().reply_to, None);
}

#[test]
fn former_texts_come_back_with_the_arrows_and_drafts_are_safe_from_them() {
    let mut app = two();
    let messages = vec![message(1, ME, BOB, "first"), message(2, ME, BOB, "second")];
    app.update(Update::History { account: BOB, messages, complete: true });
    press(&mut app, KeyCode::Up);
    assert_eq!(draft(&app), "second");
    press(&mut app, KeyCode::Up);
    assert_eq!(draft(&app), "first");
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Down);
    assert_eq!(draft(&app), "");
    type_in(&mut app, "new");
    press(&mut app, KeyCode::Up);
    assert_eq!(draft(&app), "new");
}

#[test]
fn a_new_conversation_is_looked_up_and_opened() {
    let mut app = two();
    control(&mut app, 'n');
    type_in(&mut app, "Carol");
    assert_eq!(press(&mut app, KeyCode::Enter), vec![]);
    assert!(matches!(&app.popup, Some(Popup::New { error: Some(_), .. })));
    control(&mut app, 'u');
    type_in(&mut app, "carol@c.example");
    let asked = Command::Resolve("carol@c.example".parse().unwrap());
    assert_eq!(press(&mut app, KeyCode::Enter), vec![asked]);
    assert_eq!(press(&mut app, KeyCode::Enter), vec![], "one question at a time");
    app.update(Update::Unresolved("no such account".to_owned()));
    assert!(matches!(&app.popup, Some(Popup::New { error: Some(_), busy: false, .. })));
    let carol = AccountId([7; 32]);
    let commands = app.update(Update::Resolved(carol));
    assert!(commands.contains(&Command::Open { account: carol, limit: PAGE }));
    assert_eq!(app.popup, None);
}

#[test]
fn a_request_is_decided_in_its_popup() {
    let mut app = two();
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.popup, Some(Popup::Decide(EVE)), "Enter in an empty line asks");
    assert_eq!(press(&mut app, KeyCode::Char('u')), vec![], "nothing to unblock");
    assert_eq!(press(&mut app, KeyCode::Char('b')), vec![Command::Decide(EVE, Decision::Block)]);
    control(&mut app, 'a');
    assert_eq!(press(&mut app, KeyCode::Char('a')), vec![Command::Decide(EVE, Decision::Accept)]);
}

#[test]
fn a_dismissed_request_goes_until_something_new_comes() {
    let mut app = two();
    let both = app.conversations.clone();
    app.show(EVE);
    app.update(Update::Decided(EVE, Decision::Dismiss));
    assert_eq!(app.open, Some(BOB));
    assert!(app.summary_of(EVE).is_none());
    app.update(Update::Conversations(both));
    assert!(app.summary_of(EVE).is_some());
}

#[test]
fn removing_a_device_is_asked_twice_and_never_this_one() {
    let mut app = two();
    assert_eq!(control(&mut app, 'd'), vec![Command::Devices]);
    let other = DeviceId([4; 32]);
    app.update(Update::Devices(vec![app.me.device, other]));
    assert_eq!(press(&mut app, KeyCode::Char('r')), vec![]);
    assert_eq!(press(&mut app, KeyCode::Char('y')), vec![], "this device");
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(press(&mut app, KeyCode::Enter), vec![], "anything but y is no");
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(press(&mut app, KeyCode::Char('y')), vec![Command::Remove(other)]);
}

#[test]
fn a_device_is_linked_only_after_the_digits_were_confirmed() {
    let mut app = two();
    control(&mut app, 'd');
    assert_eq!(press(&mut app, KeyCode::Char('l')), vec![Command::BeginLink]);
    app.update(Update::LinkCode("code@a.example".to_owned()));
    assert_eq!(press(&mut app, KeyCode::Char('y')), vec![]);
    app.update(Update::LinkDigits("123456".to_owned()));
    assert_eq!(press(&mut app, KeyCode::Char('y')), vec![Command::ConfirmLink]);
    app.update(Update::Linked(DeviceId([4; 32])));
    assert_eq!(press(&mut app, KeyCode::Enter), vec![Command::EndLink]);
    assert_eq!(app.popup, None);
}

#[test]
fn the_safety_number_is_marked_by_hand() {
    let mut app = two();
    assert_eq!(control(&mut app, 's'), vec![Command::Safety(BOB)]);
    app.update(Update::Safety { account: EVE, digits: "1".to_owned() });
    assert_eq!(
        app.popup,
        Some(Popup::Safety { account: BOB, digits: None }),
        "an answer about somebody else"
    );
    assert_eq!(press(&mut app, KeyCode::Char('y')), vec![Command::SetVerified(BOB, true)]);
}

#[test]
fn a_recovery_code_is_not_closed_by_a_stray_key() {
    let mut app = two();
    app.popup = Some(Popup::Recovery("abcd".to_owned()));
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Char('x'));
    assert!(app.popup.is_some());
    press(&mut app, KeyCode::Enter);
    assert!(app.popup.is_none());
}

#[test]
fn ctrl_c_keeps_the_drafts_and_quits_from_anywhere() {
    let mut app = two();
    app.popup = Some(Popup::Help { scroll: 0 });
    assert_eq!(control(&mut app, 'c'), vec![Command::KeepDrafts, Command::Quit]);
}

#[test]
fn scrolling_past_the_oldest_asks_for_more() {
    let mut app = two();
    app.update(Update::History { account: BOB, messages: vec![message(2, BOB, BOB, "x")], complete: false });
    app.drawn(0);
    assert_eq!(press(&mut app, KeyCode::PageUp), vec![Command::Open { account: BOB, limit: 2 * PAGE }]);
}

#[test]
fn a_note_stands_behind_the_newest_message_and_is_not_repeated() {
    let mut app = two();
    for _ in 0..2 {
        app.update(Update::Note { account: BOB, text: "message 3 never came".to_owned() });
    }
    assert_eq!(app.chat().unwrap().notes, [chat::Note { after: 2, text: "message 3 never came".to_owned() }]);
}
