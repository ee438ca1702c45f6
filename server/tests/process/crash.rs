//! Killed at any moment, again and again, while clients write to each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::codec::{self, Frame};
use tidings_proto::frame::FrameLimits;
use tidings_proto::id::Hash;
use tidings_proto::log::next_hash;
use tidings_proto::pb;
use tidings_proto::quic::FrameReader;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Person;
use crate::program::{Program, device};
use crate::raw::{Dice, Raw, Streams};

const ROUNDS: u64 = 14;
/// Submissions of one client in flight.
const WINDOW: u64 = 16;
/// Answered submissions that are sent once more on each connection.
const AGAIN: u64 = 8;

/// What came in: sender, number in its lane, content.
type Message = (Bytes, u64, Bytes);

/// What one device keeps over all crashes.
struct Writer {
    person: Arc<Person>,
    others: Vec<Arc<Person>>,
    outcomes: BTreeMap<u64, pb::Outcome>,
    position: Option<pb::Position>,
    received: Vec<Message>,
}

/// How far all are, and how far they have to get in this round.
#[derive(Clone)]
struct Progress {
    answered: watch::Sender<u64>,
    /// The server was killed: a connection would notice only by its idle time-out.
    killed: watch::Sender<bool>,
    /// No new submissions behind this counter; `None`: as many as can be.
    last: Option<u64>,
}

impl Writer {
    fn submission(&self, counter: u64) -> pb::Submit {
        let to = usize::try_from(counter).expect("small") % self.others.len();
        self.person.submit_to(&self.others[to], counter)
    }

    /// A proven connection that reads from the position held, and a pipeline for submissions.
    async fn open(&self, program: &Program) -> Option<(Raw, pb::Position, Streams)> {
        let connection = program.dial_with(None).await.ok()?;
        let who = (device(&self.person), &self.person.device);
        let raw = Raw::on(connection).await.prove(&program.domain, who).await?;
        let state = raw.state.as_ref().expect("a device");
        let told = self.outcomes.last_key_value().map_or(0, |(counter, _)| *counter);
        assert!(state.counter >= told, "outcome {told} was told and is lost: {}", state.counter);
        let mut local = raw.stream().await;
        let streams = raw.stream().await;
        local.0.send(&pb::Sync { after: self.position.clone() }).await.ok()?;
        let syncing: pb::Syncing = codec::decode(&local.1.next_frame().await.ok()??).expect("syncing");
        let start = syncing.start.expect("a start");
        assert!(self.position.as_ref().is_none_or(|held| *held == start), "a position was lost");
        Some((raw, start, streams))
    }

    /// Until the connection is lost; in a last round, until every submission has its answer.
    async fn connected(&mut self, program: &Program, progress: Progress) -> Option<()> {
        let mut killed = progress.killed.subscribe();
        let opened = tokio::select! {
            opened = self.open(program) => opened,
            _ = killed.wait_for(|killed| *killed) => None,
        };
        let (raw, mut position, streams) = opened?;
        let mut control = raw.control;
        let mut received = Vec::new();
        let reading = async {
            // It is there with the first entry.
            let mut events =
                FrameReader::new(raw.connection.accept_uni().await.ok()?, FrameLimits::default());
            while let Ok(Some(frame)) = events.next_frame().await {
                let entry: pb::MailboxEntry = codec::decode(&frame).expect("an entry");
                received.extend(take(&mut position, &entry));
                if entry.n.is_multiple_of(5) {
                    control.0.send(&pb::Ack { position: Some(position.clone()) }).await.ok()?;
                }
            }
            Some(())
        };
        let ended = {
            let writing = self.write(streams, progress);
            tokio::select! { done = writing => done, _ = reading => None, _ = killed.wait_for(|killed| *killed) => None }
        };
        self.position = Some(position);
        self.received.append(&mut received);
        ended
    }

    async fn write(&mut self, mut streams: Streams, progress: Progress) -> Option<()> {
        let told = self.outcomes.last_key_value().map_or(0, |(counter, _)| *counter);
        let mut sent = told.saturating_sub(AGAIN);
        let mut answered = sent;
        while progress.last.is_none_or(|last| answered < last) {
            while sent < answered + WINDOW && progress.last.is_none_or(|last| sent < last) {
                sent += 1;
                streams.0.send(&self.submission(sent)).await.ok()?;
            }
            let raw = streams.1.next_frame().await.ok()??;
            let Some(Frame::Outcome(outcome)) = Frame::from_raw(&raw).expect("a frame") else {
                panic!("{raw:?}")
            };
            answered += 1;
            assert_eq!(outcome.counter, answered);
            if let Some(first) = self.outcomes.insert(answered, outcome.clone()) {
                assert_eq!(outcome, first, "the outcome is the one that was told first");
            }
            progress.answered.send_modify(|all| *all += 1);
        }
        Some(())
    }
}

/// Takes one entry in: moves the position, gives the message if it is one.
fn take(position: &mut pb::Position, entry: &pb::MailboxEntry) -> Option<Message> {
    assert_eq!(entry.n, position.n + 1, "the log skips nothing");
    let content = pb::Entry::decode(entry.entry.clone()).expect("an entry");
    if content.r#type == 0x0a {
        let void = pb::Void::decode(content.body).expect("a void");
        (position.n, position.hash) = (void.to, void.hash);
        return None;
    }
    let before = Hash::try_from(&position.hash).expect("a hash");
    (position.n, position.hash) = (entry.n, next_hash(&before, &entry.entry).to_bytes());
    if content.r#type != 0x00 {
        return None;
    }
    let delivery = pb::Delivery::decode(content.body).expect("a delivery");
    let sender = delivery.lane.expect("a lane").sender;
    Some((sender, delivery.number, delivery.payload.expect("a payload").ciphertext))
}

async fn people(program: &Program) -> Vec<Arc<Person>> {
    let mut people = Vec::new();
    let mut clients = Vec::new();
    for (seed, user) in (1..).zip(["alice", "bob", "carol"]) {
        let (person, client) = program.enter(user, seed).await;
        people.push(Arc::new(person));
        clients.push(client);
    }
    for (place, client) in clients.iter_mut().enumerate() {
        for (_, other) in people.iter().enumerate().filter(|(other, _)| *other != place) {
            client.decide(other, pb::Decision::Accept).await;
        }
    }
    people
}

/// Lets everybody write until `enough` answers came, then kills; or until all are done.
async fn round(
    program: &Arc<Program>,
    writers: Vec<Writer>,
    enough: Option<u64>,
    last: Option<u64>,
) -> Vec<Writer> {
    let progress = Progress { answered: watch::channel(0).0, killed: watch::channel(false).0, last };
    let mut heard = progress.answered.subscribe();
    let mut tasks = JoinSet::new();
    for mut writer in writers {
        let (program, progress) = (Arc::clone(program), progress.clone());
        tasks.spawn(async move {
            let done = writer.connected(&program, progress).await;
            (writer, done)
        });
    }
    if let Some(enough) = enough {
        let reached =
            tokio::time::timeout(Duration::from_secs(20), heard.wait_for(|all| *all >= enough)).await;
        reached.expect("within the deadline").expect("it is followed");
        program.signal("-KILL");
        progress.killed.send_replace(true);
    }
    let mut writers = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (writer, done) = ended.expect("no panic");
        assert!(enough.is_some() || done.is_some(), "the last round ends in order");
        writers.push(writer);
    }
    writers
}

/// Reads what is still in the mailbox: as many messages as there have to be, and no more.
async fn read_rest(program: &Program, writer: &mut Writer, expected: usize) {
    let mut raw = Raw::device(program, &writer.person).await;
    let mut local = raw.stream().await;
    local.0.send(&pb::Sync { after: writer.position.clone() }).await.expect("writes");
    let mut position = writer.position.clone().expect("it read");
    let last = raw.state.as_ref().and_then(|state| state.mailbox_last.clone()).expect("a position");
    let mut events = None;
    while position.n < last.n {
        if events.is_none() {
            let stream = crate::program::within(raw.connection.accept_uni()).await.expect("an event stream");
            events = Some(FrameReader::new(stream, FrameLimits::default()));
        }
        let events = events.as_mut().expect("just put there");
        let entry: pb::MailboxEntry = crate::program::within(events.expect()).await.expect("an entry");
        writer.received.extend(take(&mut position, &entry));
        raw.control.0.send(&pb::Ack { position: Some(position.clone()) }).await.expect("writes");
    }
    assert_eq!(writer.received.len(), expected, "everything, and nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_any_moment_lose_nothing_that_was_accepted_and_repeat_nothing() {
    let mut dice = Dice::new();
    let program =
        Program::start("requests_per_second = 100000\ncandidate_connections_per_source = 100").await;
    let people = people(&program).await;
    let mut program = Arc::new(program);
    let mut writers: Vec<Writer> = people
        .iter()
        .map(|person| Writer {
            person: Arc::clone(person),
            others: people.iter().filter(|other| !Arc::ptr_eq(other, person)).cloned().collect(),
            outcomes: BTreeMap::new(),
            position: None,
            received: Vec::new(),
        })
        .collect();
    for _ in 0..ROUNDS {
        let enough = 1 + dice.below(120);
        writers = round(&program, writers, Some(enough), None).await;
        let program = Arc::get_mut(&mut program).expect("all tasks are gone");
        program.ended().await;
        program.begin().await;
    }
    let furthest = writers.iter().flat_map(|writer| writer.outcomes.keys().copied()).max().unwrap_or(0);
    writers = round(&program, writers, None, Some(furthest + WINDOW + 10)).await;
    for writer in &writers {
        assert!(
            writer
                .outcomes
                .values()
                .all(|outcome| matches!(outcome.result, Some(pb::outcome::Result::Accepted(_))))
        );
    }
    let sent: Vec<Vec<(Bytes, Message)>> = writers.iter().map(accepted_messages).collect();
    for writer in &mut writers {
        let own = writer.person.account().to_bytes();
        let mut expected: Vec<Message> =
            sent.iter().flatten().filter(|(to, _)| *to == own).map(|(_, message)| message.clone()).collect();
        read_rest(&program, writer, expected.len()).await;
        // Stable: order within a lane stays as it came.
        let mut received = writer.received.clone();
        received.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(received, expected, "in the order of the lanes, with its contents");
    }
    println!("{} messages in {ROUNDS} lives", sent.iter().map(Vec::len).sum::<usize>());
    Arc::into_inner(program).expect("all tasks are gone").stop().await;
}

/// What a writer was told to be accepted: the recipient, and what has to arrive there.
fn accepted_messages(writer: &Writer) -> Vec<(Bytes, Message)> {
    let own = writer.person.account().to_bytes();
    let accepted = writer.outcomes.iter().map(|(counter, outcome)| {
        let Some(pb::outcome::Result::Accepted(accepted)) = &outcome.result else { panic!("{outcome:?}") };
        let request = writer.submission(*counter);
        (request.to_account, (own.clone(), accepted.number, request.payloads[0].ciphertext.clone()))
    });
    accepted.collect()
}
