//! The group: five people at three homeservers, from its making to a member's leaving. Its hub is Carol's home.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidings_client::{AccountId, Client, GroupId, GroupStatus, MessageId, NewPost, Place, PostState, Rank};

use crate::act::Figures;
use crate::person::{PATIENCE, Person};
use crate::words::{Words, now};
use crate::world::World;

/// Who is in it. Alice's laptop is there as her second device.
pub(crate) struct Members<'a> {
    pub(crate) alice: &'a mut Person,
    pub(crate) laptop: &'a mut Person,
    pub(crate) bob: &'a mut Person,
    pub(crate) carol: &'a mut Person,
    pub(crate) dave: &'a mut Person,
    pub(crate) erin: &'a mut Person,
}

impl Members<'_> {
    /// Those who were invited, in the order of the invitation.
    fn invited(&mut self) -> [&mut Person; 4] {
        [self.alice, self.bob, self.dave, self.erin]
    }
}

/// The third homeserver, and those who come for the group.
pub(crate) async fn arrive(words: &Words, world: &mut World) -> anyhow::Result<[Person; 3]> {
    world.c.start().await?;
    let pid = world.c.pid().context("a homeserver that was started has a process")?;
    words.tell(world.c.domain, &format!("process {pid} listens at {} (UDP)", world.c.address));
    let mut people = Vec::new();
    for (name, home) in [("Carol", &world.c), ("Dave", &world.b), ("Erin", &world.a)] {
        let small = name.to_lowercase();
        let person =
            Person::register(name, &format!("{small}@{}", home.domain), home.device(&small)?).await?;
        words.tell(name, &format!("is {}", person.client.address()));
        people.push(person);
    }
    people.try_into().map_err(|_| anyhow::anyhow!("somebody is missing"))
}

/// Carol makes the group and invites everybody; they accept.
pub(crate) async fn create(words: &Words, cast: &mut Members<'_>) -> anyhow::Result<(GroupId, Figures)> {
    let begun = now();
    let group = cast.carol.client.create_group("Garden", "Who waters what").await?;
    let created = now().duration_since(begun);
    words.timed("Carol", "makes the group Garden; her home is its hub", created);
    let addresses: Vec<_> = cast.invited().iter().map(|person| person.client.address().clone()).collect();
    let begun = now();
    let invited = cast.carol.client.invite(group, &addresses).await?;
    ensure!(invited.len() == addresses.len(), "not everybody was invited");
    words.timed("Carol", &format!("invites {} at three domains", addresses.len()), now() - begun);
    let carol = cast.carol.client.account();
    let mut joining = Duration::ZERO;
    for person in cast.invited() {
        let invitation = person
            .until("the invitation", PATIENCE, async |client: &Client| {
                Ok(client
                    .store()
                    .invitations()
                    .await?
                    .into_iter()
                    .find(|invitation| invitation.group == group))
            })
            .await?;
        ensure!(
            invitation.inviter == carol && invitation.name == "Garden",
            "{} sees another invitation",
            person.name
        );
        let begun = now();
        person.client.accept_invitation(group).await?;
        joined(person, group).await?;
        let took = now().duration_since(begun);
        joining = joining.max(took);
        words.timed(person.name, "accepts, and has verified the group's chain", took);
    }
    let all = |group: &tidings_client::Group| group.members == 5 && group.invited == 0;
    for person in cast.invited() {
        person.group_is(group, "all five to be members", PATIENCE, all).await?;
    }
    cast.carol.group_is(group, "all five to be members", PATIENCE, all).await?;
    joined(cast.laptop, group).await?;
    words.verified("five members on every device, Alice's laptop among them");
    Ok((group, vec![("a group is made", created), ("slowest joining of the group", joining)]))
}

async fn joined(person: &mut Person, group: GroupId) -> anyhow::Result<()> {
    person
        .group_is(group, "to be in the group", PATIENCE, |group| group.status == GroupStatus::Member)
        .await
        .map(drop)
}

/// Three domains talk; every device shows the same posts in the same places.
pub(crate) async fn talk(words: &Words, cast: &mut Members<'_>, group: GroupId) -> anyhow::Result<Figures> {
    const ASKED: &str = "Who waters the beans tomorrow?";
    let begun = now();
    let asked = cast.carol.client.post(group, ASKED).await?;
    words.tell("Carol", &format!("writes: {ASKED}"));
    for person in cast.invited() {
        ensure!(person.gets_post(asked).await?.text == ASKED, "{} reads something else", person.name);
    }
    cast.laptop.gets_post(asked).await?;
    let everywhere = now().duration_since(begun);
    words.timed("all", "have it, at three homeservers", everywhere);
    let place = place(cast.carol, asked).await?;
    let mut answer = NewPost::from("I do.");
    answer.reply_to = Some(place);
    answer.mentions = vec![cast.carol.client.account()];
    let replied = cast.bob.client.post(group, answer).await?;
    let seen = cast.carol.gets_post(replied).await?;
    ensure!(seen.reply_to == Some(place), "the reply names another post");
    ensure!(seen.mentions == [cast.carol.client.account()], "Carol is not mentioned");
    words.tell("Bob", "answers, quotes the question and mentions Carol");
    for person in cast.invited() {
        person.gets_post(replied).await?;
        person.client.mark_group_read(group).await?;
    }
    let begun = now();
    cast.carol.client.mark_group_read(group).await?;
    cast.bob.post_reached(replied, PostState::ReadByAll).await?;
    words.timed("Bob", "sees: read by all", now() - begun);
    let marks = cast.bob.client.group_marks(group).await?;
    ensure!(marks.len() == 5, "{} members' marks instead of 5", marks.len());
    same(&[cast.alice, cast.laptop, cast.bob, cast.carol, cast.dave, cast.erin], group, asked).await?;
    words.verified("the same posts at the same places on six devices");
    Ok(vec![("a post is on all devices of the group", everywhere)])
}

async fn place(person: &mut Person, id: MessageId) -> anyhow::Result<Place> {
    person.post_reached(id, PostState::Placed).await?.place.context("a placed post has a place")
}

/// Devices hold the same posts at the same places, from a post on that all of them have.
pub(crate) async fn same(people: &[&mut Person], group: GroupId, from: MessageId) -> anyhow::Result<()> {
    let mut first: Option<Vec<(MessageId, Option<Place>, String)>> = None;
    for person in people {
        let posts = person.posts(group).await?;
        let posts = posts.into_iter().skip_while(|post| post.id != from);
        let posts: Vec<_> = posts.map(|post| (post.id, post.place, post.text)).collect();
        ensure!(!posts.is_empty(), "{} holds nothing of the group", person.name);
        match &first {
            None => first = Some(posts),
            Some(first) => ensure!(*first == posts, "{} shows other posts, or another order", person.name),
        }
    }
    Ok(())
}

/// The name changes, Bob is promoted, Dave is removed and Erin leaves.
pub(crate) async fn change(words: &Words, cast: &mut Members<'_>, group: GroupId) -> anyhow::Result<()> {
    cast.carol.client.set_group_profile(group, "Kitchen garden", "Who waters what").await?;
    for person in [&mut *cast.alice, &mut *cast.bob, &mut *cast.dave, &mut *cast.laptop] {
        person.group_is(group, "the new name", PATIENCE, |group| group.name == "Kitchen garden").await?;
    }
    words.tell("Carol", "changes the name: Kitchen garden, on all devices; no server can read it");
    let (bob, dave) = (cast.bob.client.account(), cast.dave.client.account());
    let refused = cast.bob.client.remove_members(group, &[dave]).await;
    ensure!(refused.is_err(), "a member without a rank has removed another");
    cast.carol.client.set_rank(group, bob, Rank::Admin).await?;
    cast.bob.group_is(group, "to be an admin", PATIENCE, |group| group.rank == Some(Rank::Admin)).await?;
    words.tell("Carol", "makes Bob an admin; before, he could not remove anybody");
    removed(words, cast, group, dave).await?;
    cast.erin.client.leave_group(group).await?;
    gone(cast.erin, group).await?;
    for person in [&mut *cast.alice, &mut *cast.laptop, &mut *cast.bob, &mut *cast.carol] {
        person.group_is(group, "three members", PATIENCE, |group| group.members == 3).await?;
    }
    words.tell("Erin", "leaves");
    Ok(())
}

async fn gone(person: &mut Person, group: GroupId) -> anyhow::Result<()> {
    person
        .group_is(group, "to be out of the group", PATIENCE, |group| group.status == GroupStatus::Gone)
        .await
        .map(drop)
}

/// Bob removes Dave, who sees it and reads nothing further.
async fn removed(
    words: &Words,
    cast: &mut Members<'_>,
    group: GroupId,
    dave: AccountId,
) -> anyhow::Result<()> {
    let begun = now();
    cast.bob.client.remove_members(group, &[dave]).await?;
    gone(cast.dave, group).await?;
    words.timed("Dave", "was removed by Bob, and sees it", now() - begun);
    cast.alice.group_is(group, "Dave to be out", PATIENCE, |group| group.members == 4).await?;
    let secret = cast.alice.client.post(group, "Dave must not read this.").await?;
    // Bob's device has it from the homeserver that is Dave's too.
    cast.bob.gets_post(secret).await?;
    // An answer of that homeserver to Dave's device comes after all that it has for it.
    cast.dave.client.resolve(cast.alice.client.address()).await?;
    ensure!(cast.dave.client.store().post(secret).await?.is_none(), "Dave reads on");
    ensure!(cast.dave.client.post(group, "Am I still here?").await.is_err(), "Dave writes on");
    words.verified("what Alice writes then is on Bob's device, and not on Dave's at the same homeserver");
    Ok(())
}
