//! The hub is lost for good: the group goes on under a successor, in one order, and nothing accepted is lost.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidings_client::{Client, GroupId, MessageId, PostState, ServerRef};

use crate::group::{self, Members};
use crate::person::Person;
use crate::words::{Words, now, short};
use crate::world::World;

/// Posts that Alice and Bob write by turns; the hub dies at half of them.
const POSTS: usize = 60;
/// Time for the keepers to notice, to vote, and for everybody to catch up.
const SUCCESSION: Duration = Duration::from_secs(90);

/// Plays it; returns the figures.
pub(crate) async fn run(
    words: &Words,
    world: &mut World,
    cast: &mut Members<'_>,
    group: GroupId,
) -> anyhow::Result<Vec<(String, String)>> {
    keepers(words, cast, group).await?;
    let term = cast.alice.group_is(group, "its term", SUCCESSION, |_| true).await?.term;
    let mut ids = Vec::new();
    for number in 1..=POSTS / 2 {
        ids.push(write(cast, group, number).await?);
    }
    // The kill hits posts in all states: some stable, some only at the writers' homes.
    cast.alice.post_reached(*ids.first().context("written")?, PostState::Stable).await?;
    let pid = world.c.kill().await?;
    let killed = now();
    words.tell(world.c.domain, &format!("process {pid}, the hub, gets SIGKILL and never comes back"));
    for number in POSTS / 2 + 1..=POSTS {
        ids.push(write(cast, group, number).await?);
    }
    for id in &ids {
        accepted(cast, *id).await?;
    }
    words.timed("both", &format!("have written {POSTS}; their homes have accepted all"), now() - killed);
    let new = cast.alice.group_is(group, "a new hub", SUCCESSION, |group| group.term > term).await?;
    let hub = new.hub.context("a group with members has a hub")?.to_string();
    let succeeded = now();
    words.timed(
        "all",
        &format!("{hub} is the hub now, voted for by two of three keepers"),
        succeeded - killed,
    );
    ensure!(hub != world.c.domain, "the dead hub is still the hub");
    let last = *ids.last().context("written")?;
    cast.bob
        .until("the first post under the new hub", SUCCESSION, async |client: &Client| {
            let posts = client.store().posts(group, u64::MAX, 10_000).await?;
            Ok(posts.iter().any(|post| post.place.is_some_and(|place| place.term > term)).then_some(()))
        })
        .await?;
    let first = now();
    words.timed("Bob", "has the first post of the new term", first - killed);
    for person in [&mut *cast.alice, &mut *cast.laptop, &mut *cast.bob] {
        everything(person, group, &ids).await?;
    }
    words.timed("all", &format!("have all {POSTS}"), now() - killed);
    let [.., before, _] = ids.as_slice() else { anyhow::bail!("nothing was written") };
    cast.alice.post_reached(*before, PostState::Stable).await?;
    cast.bob.post_reached(last, PostState::Stable).await?;
    words.verified("stable: held by both keepers that are left");
    check(cast, group, &ids, last).await?;
    words.verified("every post once, the same order on all devices, each writer's as written");
    Ok(vec![
        (
            "group posts written / in the log / lost / doubled".to_owned(),
            format!("{POSTS} / {POSTS} / 0 / 0"),
        ),
        ("the hub's death until a successor is the hub".to_owned(), short(succeeded - killed)),
        ("the hub's death until the first post under it".to_owned(), short(first - killed)),
    ])
}

/// All three homeservers keep the log.
async fn keepers(words: &Words, cast: &mut Members<'_>, group: GroupId) -> anyhow::Result<()> {
    let mut servers: Vec<ServerRef> = Vec::new();
    for person in [&mut *cast.carol, &mut *cast.alice, &mut *cast.bob] {
        servers.push(person.client.home().await?);
    }
    cast.carol.client.set_keepers(group, &servers).await?;
    for person in [&mut *cast.alice, &mut *cast.bob] {
        person.group_is(group, "three keepers", SUCCESSION, |group| group.keepers.len() == 3).await?;
    }
    words.tell("Carol", "names all three homeservers as keepers of the log");
    Ok(())
}

fn text(number: usize) -> String {
    format!("post {number} of {POSTS}")
}

/// Odd ones by Alice, even ones by Bob.
async fn write(cast: &mut Members<'_>, group: GroupId, number: usize) -> anyhow::Result<MessageId> {
    let writer = if number % 2 == 1 { &cast.alice.client } else { &cast.bob.client };
    Ok(writer.post(group, text(number)).await?)
}

/// The writer's home has it.
async fn accepted(cast: &mut Members<'_>, id: MessageId) -> anyhow::Result<()> {
    let alices =
        cast.alice.client.store().post(id).await?.is_some_and(|post| post.state != PostState::Received);
    let writer = if alices { &mut *cast.alice } else { &mut *cast.bob };
    writer.post_reached(id, PostState::AcceptedByHome).await.map(drop)
}

/// Waits until a device holds every post at a place in the log.
async fn everything(person: &mut Person, group: GroupId, ids: &[MessageId]) -> anyhow::Result<()> {
    person
        .until("every post", SUCCESSION, async |client: &Client| {
            let posts = client.store().posts(group, u64::MAX, 10_000).await?;
            let placed = |id: &MessageId| posts.iter().any(|post| post.id == *id && post.place.is_some());
            Ok(ids.iter().all(placed).then_some(()))
        })
        .await
}

/// Each once, in one order, each writer's in the order written.
async fn check(
    cast: &mut Members<'_>,
    group: GroupId,
    ids: &[MessageId],
    last: MessageId,
) -> anyhow::Result<()> {
    let first = *ids.first().context("written")?;
    ensure!(first != last, "one post is no order");
    group::same(&[cast.alice, cast.laptop, cast.bob], group, first).await?;
    let posts = cast.bob.posts(group).await?;
    let stream: Vec<_> = posts.iter().filter(|post| post.text.starts_with("post ")).collect();
    ensure!(stream.len() == POSTS, "{} posts instead of {POSTS}", stream.len());
    ensure!(stream.iter().map(|post| post.place).is_sorted_by(|one, next| one < next), "places do not rise");
    for parity in [1, 0] {
        let written: Vec<_> = (1..=POSTS).filter(|number| number % 2 == parity).map(text).collect();
        let shown: Vec<_> =
            stream.iter().map(|post| &post.text).filter(|text| written.contains(text)).collect();
        ensure!(shown.iter().eq(&written.iter().collect::<Vec<_>>()), "a writer's posts changed their order");
    }
    Ok(())
}
