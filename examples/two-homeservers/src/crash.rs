//! The crash: Bob's homeserver gets SIGKILL in the middle of a stream, and nothing is lost, doubled or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tidings_client::{AccountId, Client, Event, Message, MessageId, State};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::person::Person;
use crate::words::{Words, now, short};
use crate::world::World;

/// Messages of the stream.
const MESSAGES: usize = 200;
/// The kill comes when this many are durable at Bob's homeserver.
const KILL_AT: usize = 40;
/// Until then Alice is at most this far ahead of Bob's homeserver, so that the kill hits the middle of the stream.
const AHEAD: usize = 30;
/// Time for everybody to be back after the restart.
const RECOVERY: Duration = Duration::from_secs(90);

/// Who is on stage.
pub(crate) struct Cast<'a> {
    pub(crate) alice: &'a mut Person,
    pub(crate) laptop: &'a mut Person,
    pub(crate) bob: &'a mut Person,
}

fn text(number: usize) -> String {
    format!("message {number} of {MESSAGES}")
}

/// The stream, written by a task of its own: nothing waits for anything while homeservers come and go.
struct Stream {
    to: AccountId,
    written: mpsc::Receiver<anyhow::Result<MessageId>>,
    /// One permit for each message that may be written.
    pace: Arc<Semaphore>,
    _writer: JoinSet<()>,
    /// In the order they were written.
    ids: Vec<MessageId>,
    /// Lane numbers of those the home accepted.
    numbers: BTreeMap<MessageId, u64>,
    /// Up to where Bob's home has them.
    peer: u64,
    permitted: usize,
}

impl Stream {
    /// Begins to write.
    fn begin(client: Client, to: AccountId) -> Self {
        let (tell, written) = mpsc::channel(MESSAGES);
        let pace = Arc::new(Semaphore::new(AHEAD));
        let mut writer = JoinSet::new();
        writer.spawn(write(client, to, Arc::clone(&pace), tell));
        let (ids, numbers) = (Vec::new(), BTreeMap::new());
        Self { to, written, pace, _writer: writer, ids, numbers, peer: 0, permitted: AHEAD }
    }

    /// Waits for the next thing that happens to it.
    async fn next(&mut self, alice: &mut Person) -> anyhow::Result<()> {
        tokio::select! {
            Some(id) = self.written.recv() => self.ids.push(id?),
            event = alice.event() => {
                if let Some(event) = event? {
                    self.take(&event)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::Accepted { id, number, .. } => drop(self.numbers.insert(*id, *number)),
            Event::Progress { conversation, upto, state }
                if *conversation == self.to && *state >= State::AcceptedByPeer =>
            {
                self.peer = self.peer.max(*upto);
            }
            Event::Failed { reason, .. } => bail!("a message failed: {reason}"),
            _ => {}
        }
        Ok(())
    }

    /// How many Alice's home has.
    fn accepted(&self) -> usize {
        self.ids.iter().filter(|id| self.numbers.contains_key(id)).count()
    }

    /// How many Bob's home has.
    fn at_peer(&self) -> usize {
        let arrived = |id: &&MessageId| self.numbers.get(id).is_some_and(|number| *number <= self.peer);
        self.ids.iter().filter(arrived).count()
    }

    /// Flows until enough are at Bob's home and some are on their way there.
    async fn until_kill(&mut self, alice: &mut Person) -> anyhow::Result<()> {
        loop {
            self.next(alice).await?;
            let at_peer = self.at_peer();
            if at_peer >= KILL_AT && self.ids.len() > at_peer {
                return Ok(());
            }
            self.permit(at_peer + AHEAD);
        }
    }

    /// Lets this many be written in all.
    fn permit(&mut self, upto: usize) {
        let more = upto.min(MESSAGES).saturating_sub(self.permitted);
        self.pace.add_permits(more);
        self.permitted += more;
    }

    /// Flows until Alice's home has all of it.
    async fn rest(&mut self, alice: &mut Person) -> anyhow::Result<()> {
        self.permit(MESSAGES);
        while self.accepted() < MESSAGES {
            self.next(alice).await?;
        }
        Ok(())
    }
}

/// Writes the stream, as fast as it is permitted.
async fn write(
    client: Client,
    to: AccountId,
    pace: Arc<Semaphore>,
    tell: mpsc::Sender<anyhow::Result<MessageId>>,
) {
    for number in 1..=MESSAGES {
        let Ok(permit) = pace.acquire().await else { return };
        permit.forget();
        let sent = client.send_text(to, text(number), None).await;
        // Nobody listens any more once the step has failed.
        if tell.send(sent.map_err(anyhow::Error::from)).await.is_err() {
            return;
        }
    }
}

/// Plays it; returns the figures.
pub(crate) async fn run(
    words: &Words,
    world: &mut World,
    cast: Cast<'_>,
) -> anyhow::Result<Vec<(String, String)>> {
    let Cast { alice, laptop, bob } = cast;
    let to = bob.client.account();
    let mut told = bob.client.events();
    let begun = now();
    let mut stream = Stream::begin(alice.client.clone(), to);
    let flowing = tokio::time::timeout(RECOVERY, stream.until_kill(alice));
    flowing.await.context("the stream did not flow")??;
    let mut noticed = bob.client.events();
    let pid = world.b.kill().await?;
    let killed = now();
    let (written, accepted, at_peer) = (stream.ids.len(), stream.accepted(), stream.at_peer());
    words.timed(
        "Alice",
        &format!("has written {written}: {accepted} at her home, {at_peer} at Bob's"),
        killed - begun,
    );
    ensure!(written < MESSAGES, "the stream was over before the kill");
    ensure!(at_peer < written, "nothing was on its way at the kill");
    words.tell(world.b.domain, &format!("process {pid} gets SIGKILL"));
    let all = tokio::time::timeout(RECOVERY, stream.rest(alice));
    all.await.context("Alice's home did not accept the rest")??;
    let during = stream.accepted() - accepted;
    ensure!(during > 0, "nothing was accepted while Bob's homeserver was down");
    ensure!(stream.at_peer() < MESSAGES, "a homeserver that is down has accepted messages");
    words.timed("Alice", &format!("writes on: {during} more accepted by her home meanwhile"), now() - killed);
    world.b.start().await?;
    let started = now();
    words.timed(world.b.domain, "is started again after", started - killed);
    let again = tokio::time::timeout(RECOVERY, connects(&mut noticed));
    again.await.context("Bob's device did not connect again")??;
    let connected = now();
    words.timed("Bob", "his device has noticed, and is connected again", connected - started);
    let arrived = all_arrive(bob, alice.client.account(), &stream.ids).await?;
    words.timed("Bob", &format!("has all {MESSAGES}, since the start"), arrived - started);
    check(&bob.conversation(alice.client.account()).await?, &stream.ids).context("on Bob's device")?;
    once(&mut told, &stream.ids)?;
    words.verified("Bob: every text as written, in the order written, none twice");
    let last = *stream.ids.last().context("the stream is not empty")?;
    alice
        .until("all to be delivered", RECOVERY, async |client: &Client| delivered(client, &stream.ids).await)
        .await?;
    words.timed("Alice", &format!("sees all {MESSAGES} delivered, since the start"), now() - started);
    laptop.gets(last).await?;
    check(&laptop.conversation(to).await?, &stream.ids).context("on Alice's laptop")?;
    words.verified("Alice's laptop: the same, as copies");
    Ok(vec![
        (
            "messages written / arrived / lost / doubled".to_owned(),
            format!("{MESSAGES} / {MESSAGES} / 0 / 0"),
        ),
        (
            "when it was killed: at Bob's homeserver / on their way".to_owned(),
            format!("{at_peer} / {}", written - at_peer),
        ),
        ("accepted by Alice's home while it was down".to_owned(), during.to_string()),
        ("down for".to_owned(), short(started - killed)),
        ("start until Bob's device is connected again".to_owned(), short(connected - started)),
        ("start until the last message arrived".to_owned(), short(arrived - started)),
    ])
}

/// Waits for the next connection that a device tells of.
async fn connects(events: &mut Receiver<Event>) -> anyhow::Result<()> {
    loop {
        if let Event::Connected = events.recv().await.context("Bob's device told too much, or ended")? {
            return Ok(());
        }
    }
}

/// Waits until Bob's device holds every message.
async fn all_arrive(bob: &mut Person, from: AccountId, ids: &[MessageId]) -> anyhow::Result<Instant> {
    let wanted: BTreeSet<_> = ids.iter().copied().collect();
    bob.until("every message", RECOVERY, async |client: &Client| {
        let held = client.store().messages(from, u64::MAX, 10_000).await?;
        let held: BTreeSet<_> = held.iter().map(|message| message.id).collect();
        Ok(wanted.is_subset(&held).then(now))
    })
    .await
}

async fn delivered(client: &Client, ids: &[MessageId]) -> anyhow::Result<Option<()>> {
    for id in ids {
        let message = client.store().message(*id).await?.context("Alice lost a message")?;
        if message.state < State::Delivered {
            return Ok(None);
        }
        ensure!(message.state != State::Failed, "a message failed");
    }
    Ok(Some(()))
}

/// Of the stream, a device holds exactly these, in this order, with these texts.
fn check(conversation: &[Message], ids: &[MessageId]) -> anyhow::Result<()> {
    let stream: Vec<_> = conversation.iter().filter(|message| message.text.starts_with("message ")).collect();
    ensure!(stream.len() == MESSAGES, "{} messages of the stream instead of {MESSAGES}", stream.len());
    for (at, (message, id)) in stream.iter().zip(ids).enumerate() {
        ensure!(message.id == *id, "at place {} stands another message: {}", at + 1, message.text);
        ensure!(message.text == text(at + 1), "at place {} stands: {}", at + 1, message.text);
    }
    let numbers: Vec<u64> = stream.iter().map(|message| message.number).collect();
    ensure!(numbers.is_sorted_by(|one, next| one < next), "the lane's numbers do not rise");
    Ok(())
}

/// The program around Bob's device was told each message once.
fn once(told: &mut Receiver<Event>, ids: &[MessageId]) -> anyhow::Result<()> {
    let mut times: BTreeMap<MessageId, usize> = BTreeMap::new();
    loop {
        match told.try_recv() {
            Ok(Event::Message(message)) => *times.entry(message.id).or_default() += 1,
            Ok(_) => {}
            Err(TryRecvError::Lagged(_)) => bail!("events were lost"),
            Err(_) => break,
        }
    }
    for id in ids {
        ensure!(times.get(id) == Some(&1), "a message was told {:?} times", times.get(id));
    }
    Ok(())
}
