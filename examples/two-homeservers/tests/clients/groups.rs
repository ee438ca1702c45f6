//! Groups over two domains: what members see, what removal takes away, hubs that are away, handed on and lost.

use tidings_client::{
    Client, Event, GroupId, GroupStatus, MessageId, NewPost, Post, PostState, Rank, join as link,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

use crate::world::{DEADLINE, Device, World};

type Looked<T> = Result<T, Box<dyn std::error::Error>>;

/// Looks for a value now, and again after each event.
async fn until<T>(device: &Device, what: &str, mut look: impl AsyncFnMut(&Client) -> Looked<Option<T>>) -> T {
    let mut events = device.client.events();
    let wait = async {
        loop {
            if let Some(found) = look(&device.client).await.expect("reads") {
                return found;
            }
            assert!(!matches!(events.recv().await, Err(RecvError::Closed)), "the device runs");
        }
    };
    let found = tokio::time::timeout(DEADLINE, wait).await;
    found.unwrap_or_else(|_| panic!("{} waited for {what}", device.client.address()))
}

async fn is(device: &Device, group: GroupId, status: GroupStatus) {
    let look =
        async |client: &Client| Ok(client.store().group(group).await?.filter(|group| group.status == status));
    until(device, &format!("{status:?}"), look).await;
}

async fn sees(device: &Device, group: GroupId, text: &str) -> Post {
    let look = async |client: &Client| {
        let posts = client.store().posts(group, u64::MAX, 1000).await?;
        Ok(posts.into_iter().find(|post| post.text == text && post.place.is_some()))
    };
    until(device, text, look).await
}

async fn reaches(device: &Device, id: MessageId, state: PostState) {
    let look = async |client: &Client| {
        let post = client.store().post(id).await?.expect("an own post is in the store");
        assert_ne!(post.state, PostState::Failed, "{:?}", post.reason);
        Ok((post.state >= state).then_some(()))
    };
    until(device, &format!("{state:?}"), look).await;
}

async fn invited(device: &Device, group: GroupId) {
    let look = async |client: &Client| {
        Ok(client.store().invitations().await?.into_iter().find(|invitation| invitation.group == group))
    };
    until(device, "the invitation", look).await;
}

async fn joins(device: &Device, group: GroupId) {
    invited(device, group).await;
    device.client.accept_invitation(group).await.expect("accepts");
    is(device, group, GroupStatus::Member).await;
}

async fn post(device: &Device, group: GroupId, text: &str) -> MessageId {
    device.client.post(group, text).await.expect("is stored")
}

async fn texts(device: &Device, group: GroupId) -> Vec<String> {
    let posts = device.client.store().posts(group, u64::MAX, 1000).await.expect("reads");
    posts.into_iter().map(|post| post.text).collect()
}

/// A group of Alice's with others in it.
async fn group_of(alice: &Device, others: &[&Device]) -> GroupId {
    let group = alice.client.create_group("Climbing", "on rocks").await.expect("makes");
    let addresses: Vec<_> = others.iter().map(|other| other.client.address().clone()).collect();
    alice.client.invite(group, &addresses).await.expect("invites");
    for other in others {
        joins(other, group).await;
    }
    group
}

async fn second_device(world: &World, first: &Device, name: &str) -> Device {
    let linking = first.client.link_new_device().await.expect("begins");
    let (code, options) = (linking.code(), world.options(name));
    let (tell, told) = oneshot::channel();
    let new = link(options, &code, |digits: &str| tell.send(digits.to_owned()).expect("somebody waits"));
    let old = async {
        let pending = linking.wait().await.expect("the other came");
        assert_eq!(told.await.expect("told"), pending.digits());
        pending.confirm().await.expect("confirms")
    };
    let (new, _) = tokio::join!(new, old);
    Device::new(new.expect("joins"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_see_receipts_replies_and_changes_and_the_removed_read_nothing_further() {
    let [a, b] = World::pair().await;
    let (alice, bob, carol) = (a.person("alice").await, b.person("bob").await, a.person("carol").await);
    let group = group_of(&alice, &[&bob, &carol]).await;
    let hello = post(&alice, group, "hello").await;
    sees(&carol, group, "hello").await;
    let mut answer = NewPost::from("hi");
    answer.reply_to = sees(&bob, group, "hello").await.place;
    answer.mentions = vec![alice.client.account()];
    bob.client.post(group, answer.clone()).await.expect("is stored");
    let seen = sees(&alice, group, "hi").await;
    assert_eq!((seen.reply_to, seen.mentions), (answer.reply_to, answer.mentions));
    reaches(&alice, hello, PostState::DeliveredToAll).await;
    for device in [&alice, &bob, &carol] {
        sees(device, group, "hi").await;
        device.client.mark_group_read(group).await.expect("marks");
    }
    reaches(&alice, hello, PostState::ReadByAll).await;
    let marks = alice.client.group_marks(group).await.expect("fetches");
    assert_eq!(marks.len(), 3);
    assert!(marks.iter().all(|mark| mark.read >= 1 && mark.delivered >= mark.read), "{marks:?}");
    let refused = bob.client.remove_members(group, &[carol.client.account()]).await;
    assert!(refused.is_err(), "a member without a rank removes nobody");
    alice.client.set_rank(group, bob.client.account(), Rank::Admin).await.expect("ranks");
    alice.client.set_group_profile(group, "Climbers", "still").await.expect("renames");
    let renamed = async |client: &Client| {
        Ok(client.store().group(group).await?.filter(|group| group.name == "Climbers"))
    };
    until(&bob, "the new name", renamed).await;
    bob.client.remove_members(group, &[carol.client.account()]).await.expect("removes");
    is(&carol, group, GroupStatus::Gone).await;
    post(&bob, group, "without carol").await;
    sees(&alice, group, "without carol").await;
    // An answer of the home comes after all that it has for the device.
    carol.client.resolve(bob.client.address()).await.expect("resolves");
    assert_eq!(texts(&carol, group).await, ["hello", "hi"]);
    assert!(carol.client.post(group, "still there?").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_posted_while_the_hub_is_away_waits_and_a_hub_can_be_handed_on() {
    let [mut a, b] = World::pair().await;
    let (alice, bob) = (a.person("alice").await, b.person("bob").await);
    let group = group_of(&alice, &[&bob]).await;
    a.kill().await;
    let text = |n: usize| format!("post {n}");
    let mut last = post(&bob, group, &text(0)).await;
    for n in 1..20 {
        last = post(&bob, group, &text(n)).await;
    }
    reaches(&bob, last, PostState::AcceptedByHome).await;
    a.restart().await;
    alice.client.reconnect().await;
    sees(&alice, group, &text(19)).await;
    assert_eq!(texts(&alice, group).await, (0..20).map(text).collect::<Vec<_>>());
    reaches(&bob, last, PostState::Stable).await;
    let signer = bob.client.home_signer().await.expect("connected");
    alice.client.transfer_hub(group, signer).await.expect("hands over");
    post(&alice, group, "under the new hub").await;
    sees(&bob, group, "under the new hub").await;
    let moved =
        async |client: &Client| Ok(client.store().group(group).await?.filter(|group| group.term == 2));
    until(&alice, "the new term", moved).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_takes_a_group_over_whose_only_keeper_is_lost() {
    let [mut a, b] = World::pair().await;
    let (alice, mut bob) = (a.person("alice").await, b.person("bob").await);
    let group = group_of(&alice, &[&bob]).await;
    alice.client.set_rank(group, bob.client.account(), Rank::Owner).await.expect("ranks");
    let owner = async |client: &Client| {
        Ok(client.store().group(group).await?.filter(|group| group.rank == Some(Rank::Owner)))
    };
    until(&bob, "to be an owner", owner).await;
    let before = post(&bob, group, "before").await;
    reaches(&bob, before, PostState::Placed).await;
    a.kill().await;
    let during = post(&bob, group, "during").await;
    reaches(&bob, during, PostState::AcceptedByHome).await;
    bob.client.succeed_hub(group).await.expect("takes over");
    bob.event("the new term", |event| matches!(event, Event::GroupTerm { term: 2, .. }).then_some(())).await;
    reaches(&bob, during, PostState::Placed).await;
    assert_eq!(texts(&bob, group).await, ["before", "during"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_devices_follow_and_a_new_one_reads_nothing_from_before() {
    let [a, b] = World::pair().await;
    let (alice, bob) = (a.person("alice").await, b.person("bob").await);
    let group = group_of(&alice, &[&bob]).await;
    post(&alice, group, "before").await;
    sees(&bob, group, "before").await;
    let tablet = second_device(&b, &bob, "tablet").await;
    is(&tablet, group, GroupStatus::Member).await;
    post(&alice, group, "to both").await;
    sees(&bob, group, "to both").await;
    sees(&tablet, group, "to both").await;
    post(&tablet, group, "from the second").await;
    sees(&alice, group, "from the second").await;
    sees(&bob, group, "from the second").await;
    assert!(!texts(&tablet, group).await.contains(&"before".to_owned()));
    let other = alice.client.create_group("Another", "").await.expect("makes");
    alice.client.invite(other, &[bob.client.address().clone()]).await.expect("invites");
    invited(&tablet, other).await;
    joins(&bob, other).await;
    is(&tablet, other, GroupStatus::Member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_can_be_declined() {
    let [a, b] = World::pair().await;
    let (alice, bob) = (a.person("alice").await, b.person("bob").await);
    let group = alice.client.create_group("No", "").await.expect("makes");
    alice.client.invite(group, &[bob.client.address().clone()]).await.expect("invites");
    invited(&bob, group).await;
    bob.client.decline_invitation(group).await.expect("declines");
    let alone = async |client: &Client| {
        Ok(Some(client.store().group_members(group).await?).filter(|members| members.len() == 1))
    };
    until(&alice, "to be alone", alone).await;
    assert_eq!(bob.client.store().invitations().await.expect("reads"), []);
}
