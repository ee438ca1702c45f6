//! What the store promises of groups.

use sqlx::Row as _;
use tidings_proto::chain::group::{Author, Chains, NewGroup, ServerRef, genesis};
use tidings_proto::chain::{AccountState, GroupChange, Verified};
use tidings_proto::group_log::GroupPosition;
use tidings_proto::id::{DeviceId, Hash, LinkId, MessageId, ServerId};

use super::keys::{OwnKey, Turn};
use super::posts::{Place, Post, PostState};
use super::*;
use crate::me::{NewAccount, new_account};
use crate::store::{Tx, errands, messages, put_value};

const GROUP: GroupId = GroupId([5; 32]);
const BOB: (AccountId, DeviceId) = (AccountId([2; 32]), DeviceId([3; 32]));
const ME: (AccountId, DeviceId) = (AccountId([1; 32]), DeviceId([1; 32]));

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("device")).await.expect("opens");
    let mut tx = store.begin().await.expect("begins");
    put_value(&mut tx, "account", ME.0.as_ref()).await.expect("writes");
    put_chat(&mut tx, &Chat::new(GROUP, GroupStatus::Member, [9; 32])).await.expect("writes");
    tx.commit().await.expect("commits");
    (folder, store)
}

async fn post(tx: &mut Tx, n: u8, place: Option<u64>, from: (AccountId, DeviceId)) -> Post {
    let post = Post {
        local: messages::next_seq(tx).await.expect("a place"),
        group: GROUP,
        id: MessageId([n; 16]),
        place: place.map(|seq| Place { term: 1, seq }),
        sender: from.0,
        device: from.1,
        number: 0,
        text: format!("post {n}"),
        reply_to: Some(Place { term: 1, seq: 7 }),
        mentions: vec![BOB.0, ME.0],
        sent_at_ms: 9,
        state: if from == ME { PostState::Queued } else { PostState::Received },
        reason: None,
    };
    assert!(posts::put_post(tx, &post, Some(&[n])).await.expect("writes"));
    post
}

/// A group that an account of its own makes, with its first link.
fn group() -> (NewAccount, GroupState, pb::Link, Chains) {
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(7);
    let new = new_account("alice@a.example".parse().expect("an address"), &mut rng).expect("makes");
    let chain = Verified::<AccountState>::genesis(&new.link).expect("valid");
    let author = Author { account: new.me.account, device: new.me.device, head: chain.head(), number: 0 };
    let hub = ServerRef { domain: "a.example".parse().expect("a domain"), genesis: ServerId([4; 32]) };
    let address = new.me.address.clone();
    let first =
        NewGroup { salt: [1; 16], address, hub, policy: Policy::default(), profile: Vec::new().into() };
    let link = genesis(&author, &first, &new.me.key);
    let mut chains = Chains::new();
    chains.add_account(std::slice::from_ref(&new.link)).expect("valid");
    let state = GroupState::genesis(&link, &chains).expect("valid");
    (new, state, link, chains)
}

#[tokio::test]
async fn a_store_of_the_first_version_gains_groups_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("device");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("opens");
    sqlx::raw_sql(include_str!("../schema.sql")).execute(&pool).await.expect("makes");
    sqlx::raw_sql(
        "PRAGMA user_version = 1; INSERT INTO meta (key, value) VALUES ('account', x'0101010101010101010101010101010101010101010101010101010101010101'); \
         INSERT INTO errand (account, device, content) VALUES (x'02', x'03', x'04')",
    )
    .execute(&pool)
    .await
    .expect("fills");
    pool.close().await;
    for _ in 0..2 {
        let store = Store::open(&path).await.expect("opens");
        assert_eq!(store.value("account").await.expect("reads").as_deref(), Some([1; 32].as_slice()));
        assert_eq!(store.groups().await.expect("reads"), []);
        let version: i64 = sqlx::query("PRAGMA user_version")
            .fetch_one(&store.pool)
            .await
            .expect("reads")
            .try_get(0)
            .expect("a number");
        assert_eq!(version, 2);
        store.close().await;
    }
}

#[tokio::test]
async fn a_group_comes_back_as_it_was_written() {
    let (_folder, store) = store().await;
    let (_, state, link, _) = group();
    let mut chat = Chat::new(state.group(), GroupStatus::Member, [9; 32]);
    chat.state = Some(state.clone());
    chat.position = GroupPosition { term: 1, seq: 1, hash: Hash([6; 32]) };
    (chat.name, chat.stable) = ("Climbing".to_owned(), 1);
    let mut tx = store.begin().await.expect("begins");
    put_chat(&mut tx, &chat).await.expect("writes");
    put_link(&mut tx, &state, 1, &link).await.expect("writes");
    put_place(&mut tx, state.group(), &chat.position, Some(&state)).await.expect("writes");
    tx.commit().await.expect("commits");
    let read = store.chat(state.group()).await.expect("reads").expect("there");
    assert_eq!(read.state.as_ref().map(GroupState::hash), Some(state.hash()));
    assert_eq!((read.position, read.name.as_str(), read.stable), (chat.position, "Climbing", 1));
    assert_eq!(store.group_link(state.group(), 0).await.expect("reads"), Some(link));
    assert!(store.holds_link(state.group(), &state.head()).await.expect("reads"));
    let members = store.group_members(state.group()).await.expect("reads");
    assert_eq!(members.iter().map(|m| (m.rank, m.invited)).collect::<Vec<_>>(), [(Rank::Owner, false)]);
}

#[tokio::test]
async fn posts_stand_in_the_order_of_the_log_and_those_that_wait_stand_last() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    let own = post(&mut tx, 1, None, ME).await;
    post(&mut tx, 2, Some(4), BOB).await;
    post(&mut tx, 3, None, ME).await;
    post(&mut tx, 4, Some(5), BOB).await;
    posts::set_placed(&mut tx, own.id, Place { term: 1, seq: 6 }).await.expect("writes");
    assert!(!posts::put_post(&mut tx, &own, None).await.expect("writes"), "one id, one post");
    tx.commit().await.expect("commits");
    let posts = store.posts(GROUP, u64::MAX, 9).await.expect("reads");
    assert_eq!(posts.iter().map(|post| post.id.0[0]).collect::<Vec<_>>(), [2, 4, 1, 3]);
    let first = posts.first().expect("one");
    assert_eq!((first.mentions.as_slice(), first.reply_to), ([BOB.0, ME.0].as_slice(), own.reply_to));
    assert_eq!(store.posts(GROUP, u64::MAX, 2).await.expect("reads").len(), 2);
    assert_eq!(store.unread_posts(GROUP).await.expect("reads"), 2, "own ones are not unread");
}

#[tokio::test]
async fn refused_posts_come_again_in_order_under_their_numbers() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    for n in 1..=4 {
        let mut one = post(&mut tx, n, None, ME).await;
        one.number = u64::from(n);
        posts::set_encrypted(&mut tx, &one, 10 + u64::from(n), &[n]).await.expect("writes");
    }
    assert!(posts::set_accepted(&mut tx, MessageId([2; 16]), 12).await.expect("writes"));
    posts::set_placed(&mut tx, MessageId([1; 16]), Place { term: 1, seq: 5 }).await.expect("writes");
    posts::requeue(&mut tx, GROUP, ME.1, 2).await.expect("writes");
    assert!(!posts::set_accepted(&mut tx, MessageId([3; 16]), 13).await.expect("writes"), "not its any more");
    assert!(!posts::is_carried(&mut tx, MessageId([2; 16]), 12).await.expect("reads"));
    tx.commit().await.expect("commits");
    assert_eq!(store.own_number(GROUP).await.expect("reads"), 1);
    let waiting = store.waiting_posts(GROUP).await.expect("reads");
    assert_eq!(waiting.iter().map(|one| one.post.id.0[0]).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(waiting.iter().all(|one| !one.encrypted && !one.under_way));
    assert_eq!(store.waiting_groups().await.expect("reads"), [GROUP]);
    let mut tx = store.begin().await.expect("begins");
    posts::set_failed(&mut tx, MessageId([2; 16]), "too large").await.expect("writes");
    tx.commit().await.expect("commits");
    let waiting = store.waiting_posts(GROUP).await.expect("reads");
    assert_eq!(waiting.iter().map(|one| one.post.id.0[0]).collect::<Vec<_>>(), [3, 4], "they move up");
}

#[tokio::test]
async fn a_new_term_takes_everything_above_its_beginning_back() {
    let (_folder, store) = store().await;
    let (new, state, link, mut chains) = group();
    let id = state.group();
    let author = Author { account: new.me.account, device: new.me.device, head: new_head(&new), number: 0 };
    let change = GroupChange::SetPolicy(Policy { members_max: 9, ..Policy::default() });
    let second = state.link(Some(&author), &change, &[&new.me.key]);
    chains.add_account(std::slice::from_ref(&new.link)).expect("valid");
    let after = state.apply(&second, &chains).expect("valid");
    let at = |seq| GroupPosition { term: 1, seq, hash: Hash([u8::try_from(seq).expect("small"); 32]) };
    let mut tx = store.begin().await.expect("begins");
    put_chat(&mut tx, &Chat { stable: 3, ..Chat::new(id, GroupStatus::Member, [9; 32]) })
        .await
        .expect("writes");
    for (seq, link, state) in [(1, &link, &state), (3, &second, &after)] {
        put_link(&mut tx, state, seq, link).await.expect("writes");
        put_place(&mut tx, id, &at(seq), Some(state)).await.expect("writes");
    }
    put_place(&mut tx, id, &at(2), None).await.expect("writes");
    let own = Post { group: id, ..post(&mut tx, 1, None, ME).await };
    sqlx::query("UPDATE post SET chat = ?1").bind(id.to_vec()).execute(&mut *tx).await.expect("moves");
    posts::set_placed(&mut tx, own.id, Place { term: 1, seq: 4 }).await.expect("writes");
    assert!(count(&mut tx, id, BOB, 3).await.expect("counts"));
    assert!(!count(&mut tx, id, BOB, 5).await.expect("counts"));
    let void = cut(&mut tx, id, 2).await.expect("cuts");
    assert_eq!(void, [second.body.to_vec()]);
    assert!(count(&mut tx, id, BOB, 2).await.expect("counts"), "its posts come again");
    assert!(count(&mut tx, id, BOB, 3).await.expect("counts"));
    tx.commit().await.expect("commits");
    assert_eq!(store.place(id, 2).await.expect("reads"), Some(at(2)));
    assert_eq!(store.place(id, 3).await.expect("reads"), None);
    let back = store.state_at(id, 2).await.expect("reads").expect("there");
    assert_eq!(back.hash(), state.hash());
    let undone = store.post(own.id).await.expect("reads").expect("there");
    assert_eq!((undone.place, undone.state), (None, PostState::AcceptedByHome));
    assert_eq!(store.chat(id).await.expect("reads").expect("there").stable, 2);
}

fn new_head(new: &NewAccount) -> LinkId {
    Verified::<AccountState>::genesis(&new.link).expect("valid").head()
}

#[tokio::test]
async fn what_is_stable_is_pruned_but_for_the_newest_state() {
    let (_folder, store) = store().await;
    let (_, state, _, _) = group();
    let at = |seq| GroupPosition { term: 1, seq, hash: Hash([1; 32]) };
    let mut tx = store.begin().await.expect("begins");
    for seq in [1, 2, 5_000, 5_001] {
        put_place(&mut tx, GROUP, &at(seq), (seq != 5_001).then_some(&state)).await.expect("writes");
    }
    prune_places(&mut tx, GROUP, 5_000).await.expect("prunes");
    tx.commit().await.expect("commits");
    for (seq, there) in [(1, false), (2, false), (5_000, true), (5_001, true)] {
        assert_eq!(store.place(GROUP, seq).await.expect("reads").is_some(), there, "{seq}");
    }
    assert!(store.state_at(GROUP, 5_001).await.expect("reads").is_some());
}

#[tokio::test]
async fn own_posts_rise_with_the_log_and_never_fall() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    for n in 1..=3 {
        post(&mut tx, n, None, ME).await;
        let place = Place { term: 1, seq: u64::from(n) };
        posts::set_placed(&mut tx, MessageId([n; 16]), place).await.expect("writes");
    }
    post(&mut tx, 4, Some(4), BOB).await;
    assert_eq!(posts::raise(&mut tx, GROUP, 2, PostState::ReadByAll).await.expect("raises"), 2);
    assert_eq!(posts::raise(&mut tx, GROUP, 3, PostState::Stable).await.expect("raises"), 1);
    assert_eq!(posts::raise(&mut tx, GROUP, 9, PostState::DeliveredToAll).await.expect("raises"), 1);
    tx.commit().await.expect("commits");
    let states: Vec<_> =
        store.posts(GROUP, u64::MAX, 9).await.expect("reads").iter().map(|post| post.state).collect();
    let read = PostState::ReadByAll;
    assert_eq!(states, [read, read, PostState::DeliveredToAll, PostState::Received]);
}

#[tokio::test]
async fn a_device_is_asked_for_a_key_a_bounded_number_of_times() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    let ask = |n: u8| (BOB.1, [n; 16]);
    assert!(keys::may(&mut tx, Turn::Ask, ask(1), 1_000_000, 3).await.expect("asks"));
    assert!(!keys::may(&mut tx, Turn::Ask, ask(1), 1_059_000, 3).await.expect("asks"), "a minute apart");
    assert!(keys::may(&mut tx, Turn::Answer, ask(1), 1_059_000, 3).await.expect("asks"), "another count");
    assert!(keys::may(&mut tx, Turn::Ask, ask(2), 1_059_000, 3).await.expect("asks"));
    assert!(keys::may(&mut tx, Turn::Ask, ask(1), 1_061_000, 3).await.expect("asks"));
    assert!(!keys::may(&mut tx, Turn::Ask, ask(3), 1_061_000, 3).await.expect("asks"), "three in an hour");
    assert!(keys::may(&mut tx, Turn::Ask, ask(3), 4_700_000, 3).await.expect("asks"));
}

#[tokio::test]
async fn posts_wait_for_their_key_at_their_place_and_keys_are_kept_while_they_may_be_wanted() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    for seq in [4, 6] {
        keys::put_undecrypted(&mut tx, GROUP, (1, seq), (BOB.1, [7; 16]), b"post").await.expect("writes");
    }
    keys::put_sender_key(&mut tx, GROUP, BOB, [7; 16], (b"old", 10)).await.expect("writes");
    keys::put_sender_key(&mut tx, GROUP, BOB, [8; 16], (b"new", 20)).await.expect("writes");
    keys::put_sender_key(&mut tx, GROUP, BOB, [8; 16], (b"newer", 0)).await.expect("writes");
    let own = OwnKey { distribution: [9; 16], head_number: 3, posts: 4, at_ms: 5 };
    keys::put_own_key(&mut tx, GROUP, &own).await.expect("writes");
    keys::put_given(&mut tx, GROUP, [9; 16], (BOB.1, b"handed on"), 5).await.expect("writes");
    keys::put_given(&mut tx, GROUP, [6; 16], (BOB.1, b"before"), 5).await.expect("writes");
    tx.commit().await.expect("commits");
    let waiting = store.undecrypted(GROUP, BOB.1, [7; 16]).await.expect("reads");
    assert_eq!(waiting.iter().map(|one| one.seq).collect::<Vec<_>>(), [4, 6]);
    assert_eq!(store.missing_keys().await.expect("reads").len(), 1);
    assert_eq!(store.own_key(GROUP).await.expect("reads"), Some(own));
    let mut tx = store.begin().await.expect("begins");
    keys::take_undecrypted(&mut tx, GROUP, 4).await.expect("takes");
    keys::prune_keys(&mut tx, 30).await.expect("prunes");
    tx.commit().await.expect("commits");
    assert_eq!(store.sender_key(GROUP, BOB.1, [7; 16]).await.expect("reads"), None);
    let newer = store.sender_key(GROUP, BOB.1, [8; 16]).await.expect("reads");
    assert_eq!(newer, Some((BOB.0, b"newer".to_vec())), "the newest stays");
    assert_eq!(store.given(GROUP, [9; 16]).await.expect("reads").len(), 1);
    assert_eq!(store.given(GROUP, [6; 16]).await.expect("reads").len(), 0);
}

#[tokio::test]
async fn what_waits_for_a_member_goes_with_the_member() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    let content = pb::Content::default();
    errands::put_for_group(&mut tx, GROUP, BOB, &content).await.expect("writes");
    errands::put_for_group(&mut tx, GROUP, ME, &content).await.expect("writes");
    errands::forget_member(&mut tx, GROUP, BOB.0).await.expect("forgets");
    tx.commit().await.expect("commits");
    assert_eq!(errands::awaited(&store, GROUP).await.expect("reads"), [ME.0]);
    let [errand] = &errands::all(&store, 9).await.expect("reads")[..] else { panic!("one") };
    assert_eq!((errand.chat, errand.device), (Some(GROUP), ME.1));
}

#[tokio::test]
async fn an_invitation_is_told_once_and_changes_nothing_for_a_member() {
    let (_folder, store) = store().await;
    let hub = pb::ServerRef { domain: "a.example".to_owned(), genesis: vec![4; 32].into() };
    let invitation = |group: GroupId| pb::GroupInvitation {
        group: group.to_bytes(),
        hub: Some(hub.clone()),
        profile_key: vec![7; 32].into(),
        name: "Climbing".to_owned(),
        ..Default::default()
    };
    let new = GroupId([6; 32]);
    let mut tx = store.begin().await.expect("begins");
    let from = (BOB.0, false);
    assert!(remember_invitation(&mut tx, from, &invitation(GROUP)).await.expect("writes").is_none());
    assert!(remember_invitation(&mut tx, from, &invitation(new)).await.expect("writes").is_some());
    assert!(remember_invitation(&mut tx, from, &invitation(new)).await.expect("writes").is_none());
    let short = pb::GroupInvitation { profile_key: vec![7; 31].into(), ..invitation(GroupId([8; 32])) };
    assert!(remember_invitation(&mut tx, from, &short).await.expect("writes").is_none());
    tx.commit().await.expect("commits");
    let [one] = &store.invitations().await.expect("reads")[..] else { panic!("one") };
    assert_eq!((one.group, one.inviter, one.name.as_str()), (new, BOB.0, "Climbing"));
}
