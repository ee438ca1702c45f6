//! One suite for every store: random groups of writes go to it and to the model, and every question gets the same
//! answer from both, also after the store was closed and opened again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tidings_proto::id::{AccountId, DeviceId, GroupId, Hash, Incarnation};

use super::{
    AccountRow, DeviceRow, Directory as _, EntryRow, GroupCursorRow, GroupEntryRow, GroupWrites, KeyKind,
    LinkRow, LogRow, ModelStore, OpenKind, OpenRow, OutcomeRow, PeerRow, SqliteStore, Store, StoreError,
    Writes,
};

const fn account(byte: u8) -> AccountId {
    AccountId([byte; 32])
}

const fn device(byte: u8) -> DeviceId {
    DeviceId([byte; 32])
}

fn text(byte: u8) -> Bytes {
    Bytes::from(vec![byte; usize::from(byte % 5) + 1])
}

/// One change of a row, small enough that rows meet.
#[derive(Debug, Clone, Copy)]
struct Op {
    kind: u8,
    a: u8,
    b: u8,
    n: u64,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = (0_u8..28, 1_u8..4, 1_u8..4, 1_u64..12).prop_map(|(kind, a, b, n)| Op { kind, a, b, n });
    proptest::collection::vec(op, 1..12)
}

fn apply(writes: &mut Writes, op: Op) {
    let Op { kind, a, b, n } = op;
    let log = i64::from(a);
    match kind {
        0 => {
            let row = AccountRow { id: account(a), address: format!("u{b}@a.test"), local: b == 1 };
            writes.accounts.insert(row.id, row);
        }
        1 => {
            let row = LinkRow { account: account(a), number: n, link: text(b), at_ms: n };
            writes.links.insert((row.account, n), row);
        }
        2 => drop(writes.names.insert(format!("u{b}@a.test"), account(a))),
        3 => drop(writes.devices.insert(device(a), Some(device_row(a, b, n)))),
        4 => drop(writes.devices.insert(device(a), None)),
        5 => drop(writes.keys.insert((device(a), key_kind(b), small(n)), Some(text(b)))),
        6 => drop(writes.keys.insert((device(a), key_kind(b), small(n)), None)),
        7 => drop(writes.keys_cleared.insert(device(a))),
        8 => drop(writes.tokens.insert(Hash([a; 32]), b > 1)),
        9 => drop(writes.handed.insert((account(a), format!("d{b}.test")), n)),
        10 => drop(writes.logs.insert(log, Some(log_row(log, n)))),
        11 => drop(writes.logs.insert(log, None)),
        12 => drop(writes.entries.insert((log, n), entry_row(log, n, b))),
        13 => drop(writes.voids.insert((log, n), i32::from(b))),
        14 => drop(writes.trims.insert(log, n)),
        15 => {
            let outcome = OutcomeRow { digest: Hash([b; 32]), outcome: text(b) };
            writes.outcomes.insert((device(a), n), outcome);
            writes.outcomes_trimmed.insert(device(a), n.saturating_sub(3));
        }
        16 => drop(writes.lanes.insert((account(a), account(b)), text(b))),
        17 => {
            let lane = (account(a), account(b));
            let row = (n % 3 > 0).then_some(OpenRow {
                lane,
                number: n,
                upto: n + 1,
                expires_at_ms: n * 10,
                kind: OpenKind::from_number(i64::from(a) - 1).expect("one of three"),
                acknowledged: b == 2,
            });
            writes.open.insert((lane, n), row);
        }
        18 => {
            let row = PeerRow { id: log, domain: format!("d{b}.test"), log, state: text(b) };
            writes.peers.insert(log, (b > 1).then_some(row));
            writes.refusals.insert((log, n), (a > 1).then(|| text(a)));
        }
        19 => drop(writes.owed.insert((log, text(b)), (n > 3).then(|| text(a)))),
        _ => apply_to_groups(&mut writes.groups, op),
    }
}

fn apply_to_groups(writes: &mut GroupWrites, Op { kind, a, b, n }: Op) {
    let id = GroupId([a; 32]);
    match kind {
        20 => drop(writes.gone.insert(id)),
        21 => drop(writes.parts.insert((id, text(b)), (n > 3).then(|| text(a)))),
        22 => drop(writes.cut.insert(id, n)),
        23 => {
            let row = GroupEntryRow { seq: n, link: b == 2, slot: text(a), record: text(b), at_ms: n * 10 };
            writes.entries.insert((id, n), row);
        }
        24 => drop(writes.trims.insert(id, (n, n / 2))),
        25 => drop(writes.readers.insert((id, account(b)), (n > 3).then_some(n))),
        26 => drop(writes.slots.insert((id, n), text(b))),
        _ => {
            let row = GroupCursorRow { term: 1, seq: n, hash: Hash([a; 32]) };
            writes.cursors.insert((id, device(b)), (n > 3).then_some(row));
        }
    }
}

fn key_kind(byte: u8) -> KeyKind {
    KeyKind::from_number(i64::from(byte)).expect("one of four")
}

fn small(n: u64) -> u32 {
    u32::try_from(n).expect("small")
}

fn device_row(a: u8, b: u8, n: u64) -> DeviceRow {
    DeviceRow {
        id: device(a),
        account: account(b),
        log: i64::from(a),
        counter: n,
        digest: Hash([b; 32]),
        record: text(b),
        keyed: b == 2,
        told_low: b == 1,
        ec_high: small(n),
        kyber_high: small(n) + 1,
    }
}

fn log_row(id: i64, n: u64) -> LogRow {
    LogRow {
        id,
        incarnation: Incarnation([u8::from(n.is_multiple_of(2)); 16]),
        first: 1,
        last: n,
        before: Hash::ZERO,
        hash: Hash([2; 32]),
        lapsed: n == 3,
        base: n / 2,
    }
}

fn entry_row(log: i64, n: u64, b: u8) -> EntryRow {
    EntryRow {
        log,
        n,
        hash: Hash([b; 32]),
        content: Some(text(b)),
        void: 0,
        expires_at_ms: n * u64::from(b % 2) * 10,
        key: if b == 2 { text(b) } else { Bytes::new() },
        aux: n,
    }
}

/// Every answer, in words that can be compared.
async fn answers(store: &dyn Store) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |what: String| out.push(what);
    for a in 1..4 {
        let log = i64::from(a);
        say(format!("{:?}", store.account(account(a)).await));
        say(format!("{:?}", store.devices(account(a)).await));
        say(format!("{:?}", store.reader_of(log).await));
        say(format!("{:?}", store.prekeys(device(a)).await));
        say(format!("{:?}", store.token(Hash([a; 32])).await));
        say(format!("{:?}", store.handed(account(a)).await));
        say(format!("{:?}", store.log(log).await));
        say(format!("{:?}", store.entries(log, 3, 4).await));
        say(format!("{:?}", store.entries(log, 0, 99).await));
        say(format!("{:?}", store.recipients(account(a), account(1), 9).await));
        say(format!("{:?}", store.refusals(log).await));
        say(format!("{:?}", store.owed(log, 2).await));
        say(format!("{:?}", store.named(&format!("u{a}@a.test")).await));
        // Order among equals is not promised.
        let mut requesters = store.requesters(account(a)).await.expect("answers");
        requesters.sort_unstable();
        say(format!("{requesters:?}"));
        for b in 1..4 {
            say(format!("{:?}", store.lane((account(a), account(b))).await));
        }
        for n in 1..12 {
            say(format!("{:?}", store.outcome(device(a), n).await));
        }
        let group = GroupId([a; 32]);
        say(format!("{:?}", store.group(group).await));
        say(format!("{:?}", store.groups_of(account(a)).await));
        say(format!("{:?}", store.group_entries(group, 3, 4).await));
        say(format!("{:?}", store.group_links(group, 2, 3).await));
        say(format!("{:?}", store.group_older(group, 50).await));
    }
    say(format!("{:?}", store.outdated(Incarnation([1; 16]), 9).await));
    say(format!("{:?}", store.last_log().await));
    say(format!("{:?}", store.groups(GroupId([1; 32]), 1).await));
    say(format!("{:?}", store.peers().await));
    let mut expired = store.expired_entries(60, 99).await.expect("answers");
    expired.sort_unstable();
    say(format!("{expired:?}"));
    let mut open = store.expired_open(60, 99).await.expect("answers");
    open.sort_by_key(|row| (row.lane, row.number));
    say(format!("{open:?}"));
    out
}

async fn compare(groups: Vec<Vec<Op>>) {
    let folder = tempfile::tempdir().expect("a folder");
    let model = ModelStore::default();
    let store = SqliteStore::open(folder.path()).await.expect("opens");
    for group in groups {
        let mut writes = Writes::default();
        for op in group {
            let mut one = Writes::default();
            apply(&mut one, op);
            // The model gets them one by one, the store as the committer would join them.
            model.commit(&one).await.expect("the model takes everything");
            writes.absorb(one);
        }
        store.commit(&writes).await.expect("it is written");
    }
    let expected = answers(&model).await;
    assert_eq!(answers(&store).await, expected);
    store.close().await.expect("closes");
    let again = SqliteStore::open(folder.path()).await.expect("opens again");
    assert_eq!(answers(&again).await, expected, "after closing and opening");
    again.close().await.expect("closes");
}

#[test]
fn sqlite_answers_as_the_model_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut runner = TestRunner::new(Config { cases: 48, ..Config::default() });
    let groups = proptest::collection::vec(ops(), 1..6);
    runner
        .run(&groups, |groups| {
            runtime.block_on(compare(groups));
            Ok(())
        })
        .expect("no difference");
}

#[tokio::test]
async fn a_second_process_is_refused_and_a_newer_schema_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(folder.path()).await.expect("opens");
    let second = SqliteStore::open(folder.path()).await.expect_err("it is in use");
    assert!(matches!(second, StoreError::InUse(_)), "{second}");
    store.close().await.expect("closes");
    let path = folder.path().join("tidings.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection =
        <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.expect("opens");
    sqlx::query("PRAGMA user_version = 9").execute(&mut connection).await.expect("sets");
    sqlx::Connection::close(connection).await.expect("closes");
    let newer = SqliteStore::open(folder.path()).await.expect_err("it is newer");
    assert!(matches!(newer, StoreError::NewerSchema { found: 9, known: 2 }), "{newer}");
}

#[tokio::test]
async fn a_damaged_row_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(folder.path()).await.expect("opens");
    let devices = BTreeMap::from([(device(1), Some(device_row(1, 1, 1)))]);
    let writes = Writes { devices, ..Writes::default() };
    store.commit(&writes).await.expect("writes");
    store.execute_for_test("UPDATE device SET digest = x'00'").await;
    let error = store.devices(account(1)).await.expect_err("it is damaged");
    assert_eq!(error.to_string(), "the database is damaged: table device, column digest, row 00");
}

#[tokio::test]
async fn a_group_is_durable_before_anybody_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path()).await.expect("opens"));
    let committer = super::Committer::start(Arc::clone(&store));
    let token = |byte| Writes { tokens: BTreeMap::from([(Hash([byte; 32]), true)]), ..Writes::default() };
    let commits: Vec<_> = (1..50).map(|byte| committer.hand_over(token(byte))).collect();
    for commit in commits {
        commit.durable().await.expect("it is written");
    }
    for byte in 1..50 {
        assert!(store.token(Hash([byte; 32])).await.expect("answers"));
    }
    committer.close().await;
    assert!(committer.open().is_err(), "nothing is taken after the end");
}
