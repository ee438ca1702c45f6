//! Groups: the log followed and verified, links made, posts sent, keys handed on (spec 07-groups; 08-encryption, 8.8).
//!
//! | state of a group here | entry | signed head | own post | own change |
//! |---|---|---|---|---|
//! | creating | - | - | - | the genesis is offered again |
//! | invited | - | - | - | accept, decline |
//! | joining | links followed, messages passed over | taken | - | waits |
//! | member | followed | taken | encrypted, numbered, submitted | appended; made anew where it came too late |
//! | stalled (a chain is being fetched) | dropped, read again later | dropped | waits | waits |
//! | damaged, forked | dropped | kept as proof | waits | refused |
//! | gone | - | - | fails | refused |
//!
//! Invariants: the place in the log moves in the transaction that holds an entry's effect; nothing is believed of a
//! group but what its chain says; a post is encrypted only to devices that the verified chains of members list.

mod changes;
mod evidence;
mod follow;
mod head;
mod join;
mod keys;
mod links;
mod pages;
mod posts;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::group::{Author, ServerRef, ServerSigner};
use tidings_proto::group_log::GroupPosition;
use tidings_proto::id::{AccountId, GroupId};
use tidings_proto::pb;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use changes::Pending;
pub(crate) use changes::Wish;
use pages::{Pages, Reading};

use super::session::{Session, lost, now};
use super::{Ended, Engine};
use crate::error::{Error, StoreError};
use crate::home::{Home, HomeError};
use crate::store::groups::{Chat, GroupStatus, posts as post_store};

/// Whoever waits for something that has no value of its own.
pub(crate) type Answer = oneshot::Sender<Result<(), Error>>;

/// How far a member is, in numbers of the group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberMark {
    /// The member.
    pub account: AccountId,
    /// It has everything up to here on a device.
    pub delivered: u64,
    /// It has read everything up to here.
    pub read: u64,
}

/// A home as a server that signs in groups: what an owner's program needs to make it a keeper or the hub.
#[derive(Debug, Clone)]
pub struct HomeSigner {
    pub(crate) signer: ServerSigner,
    /// Its chain, for those who have to verify what it signs.
    pub(crate) links: Vec<pb::Link>,
}

impl HomeSigner {
    /// The server, by its domain and chain.
    #[must_use]
    pub const fn server(&self) -> &ServerRef {
        &self.signer.server
    }
}

/// What the handle asks of the task about groups.
pub(crate) enum GroupCommand {
    /// Makes a group.
    Create { name: String, description: String, answer: oneshot::Sender<Result<GroupId, Error>> },
    /// Becomes a member of a group that it was invited to.
    Accept(GroupId, Answer),
    /// Declines an invitation.
    Decline(GroupId, Answer),
    /// Changes a group.
    Change(GroupId, Box<Wish>, Answer),
    /// How far everybody is.
    Marks(GroupId, oneshot::Sender<Result<Vec<MemberMark>, Error>>),
    /// This device's home as a server that signs.
    Home(oneshot::Sender<Result<HomeSigner, Error>>),
}

/// What a request about a group brought.
pub(crate) enum Answered {
    /// A new group's genesis was offered.
    Created(GroupId, Option<oneshot::Sender<Result<GroupId, Error>>>, Result<pb::GroupAppended, HomeError>),
    /// A link was offered, of the pending change with this number.
    Appended(u64, Result<pb::GroupAppended, HomeError>),
    /// State and links were asked for.
    Pages(Box<Reading>, Result<Box<Pages>, HomeError>),
    /// A chain that these pages need.
    Chain(Box<(Reading, Pages)>, AccountId, Result<Vec<pb::Link>, HomeError>),
    /// Who has what.
    Marks(oneshot::Sender<Result<Vec<MemberMark>, Error>>, Result<pb::GroupMarksTable, HomeError>),
}

/// What one connection holds for groups.
pub(crate) struct Work {
    pub(super) asks: JoinSet<Answered>,
    pending: Vec<Pending>,
    next_change: u64,
    /// Places to be acknowledged.
    acks: BTreeMap<GroupId, GroupPosition>,
    /// Groups that wait for a chain; when to try again.
    stalled: BTreeMap<GroupId, Instant>,
    /// When a group was last read again from its place.
    rewound: BTreeMap<GroupId, Instant>,
    /// Groups whose state is being fetched anew; until when that is waited for.
    resyncing: BTreeMap<GroupId, Instant>,
    /// When the home last sent something of a mailbox or log.
    pub(super) heard: Instant,
}

impl Work {
    pub(super) fn new() -> Self {
        Self {
            asks: JoinSet::new(),
            pending: Vec::new(),
            next_change: 1,
            acks: BTreeMap::new(),
            stalled: BTreeMap::new(),
            rewound: BTreeMap::new(),
            resyncing: BTreeMap::new(),
            heard: now(),
        }
    }

    /// Whether a place is to be acknowledged.
    pub(super) fn has_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    /// Places to be acknowledged now.
    pub(super) fn take_acks(&mut self) -> Vec<pb::GroupAck> {
        let acks = std::mem::take(&mut self.acks);
        let ack = |(group, at): (GroupId, GroupPosition)| pb::GroupAck {
            group: group.to_bytes(),
            position: Some(at.to_pb()),
        };
        acks.into_iter().map(ack).collect()
    }
}

/// Time after which a group that waits for a chain is read again in any case.
const STALL: Duration = Duration::from_secs(5);
/// Time after which a state that did not come is asked for again.
const READING: Duration = Duration::from_secs(60);
/// Time between two readings of a group from its place on.
const REWIND: Duration = Duration::from_secs(1);

impl Engine {
    /// A group as it stands; from memory, or the store.
    pub(super) async fn chat(&mut self, group: GroupId) -> Result<Option<Chat>, StoreError> {
        if !self.chats.contains_key(&group) {
            match self.store.chat(group).await? {
                Some(chat) => drop(self.chats.insert(group, chat)),
                None => return Ok(None),
            }
        }
        Ok(self.chats.get(&group).cloned())
    }

    /// What is to be done for groups at the beginning of a connection.
    pub(super) async fn begin_groups(&mut self, session: &mut Session) -> Result<(), Ended> {
        self.chats.clear();
        for chat in self.store.chats().await? {
            match chat.status {
                GroupStatus::Creating => self.offer_genesis(session, &chat, None).await?,
                GroupStatus::Joining => self.go_on_joining(session, &chat, None).await?,
                _ => {}
            }
        }
        self.advance_groups(session).await?;
        self.tell_groups_read(session).await
    }

    pub(super) async fn group_command(
        &mut self,
        session: &mut Session,
        command: GroupCommand,
    ) -> Result<(), Ended> {
        match command {
            GroupCommand::Create { name, description, answer } => {
                self.create_group(session, (name, description), answer).await
            }
            GroupCommand::Accept(group, answer) => self.decide(session, group, (true, answer)).await,
            GroupCommand::Decline(group, answer) => self.decide(session, group, (false, answer)).await,
            GroupCommand::Change(group, wish, answer) => {
                self.wish(session, group, *wish, Some(answer));
                self.drive_changes(session).await
            }
            GroupCommand::Marks(group, answer) => {
                let request = pb::GroupMarksFetch { group: group.to_bytes(), account: Bytes::new() };
                let connection = session.connection.clone();
                session
                    .groups
                    .asks
                    .spawn(async move { Answered::Marks(answer, asked(&connection, &request).await) });
                Ok(())
            }
            GroupCommand::Home(answer) => {
                let links = super::held_links(&self.store).await?;
                let home = self.home_signer().map(|signer| HomeSigner { signer, links });
                drop(answer.send(home.ok_or(Error::Offline)));
                Ok(())
            }
        }
    }

    /// This device's home, as the chain that pins it says.
    pub(super) fn home_signer(&self) -> Option<ServerSigner> {
        let chain = self.server.as_ref()?;
        let server = ServerRef { domain: chain.state().domain().clone(), genesis: chain.server_id() };
        let key = *chain.state().online_keys().last()?;
        Some(ServerSigner { server, head: chain.head(), key })
    }

    /// This device, as it signs links.
    pub(super) fn author(&self) -> Author {
        Author {
            account: self.me.account,
            device: self.me.device,
            head: self.own.head(),
            number: u64::try_from(self.own.len().saturating_sub(1)).unwrap_or(u64::MAX),
        }
    }

    /// The own account's chain, for whoever judges a link of this device.
    pub(super) async fn own_evidence(&self) -> Result<pb::Evidence, StoreError> {
        let links = self.store.links(self.me.account).await?;
        Ok(pb::Evidence { chain: self.me.account.to_bytes(), links, server: false })
    }

    pub(super) async fn group_answered(
        &mut self,
        session: &mut Session,
        answered: Answered,
    ) -> Result<(), Ended> {
        match answered {
            Answered::Created(group, answer, result) => {
                self.created(session, group, answer, result).await?;
            }
            Answered::Appended(change, result) => self.appended(session, change, result).await?,
            Answered::Pages(reading, result) => match result {
                Ok(pages) => self.read_pages(session, *reading, *pages).await?,
                Err(error) => self.reading_failed(session, *reading, error)?,
            },
            Answered::Chain(waits, account, result) => {
                let (reading, pages) = *waits;
                match result {
                    Ok(links) => {
                        self.meet(account, links).await?;
                        self.read_pages(session, reading, pages).await?;
                    }
                    Err(error) => self.reading_failed(session, reading, error)?,
                }
            }
            Answered::Marks(answer, result) => drop(answer.send(marks(caller(result)?))),
        }
        self.drive_changes(session).await?;
        self.send_waiting(session).await
    }

    /// What is a matter of time.
    pub(super) async fn group_tick(&mut self, session: &mut Session) -> Result<(), Ended> {
        let now = now();
        let again: Vec<_> =
            session.groups.stalled.iter().filter(|(_, at)| **at <= now).map(|(group, _)| *group).collect();
        for group in again {
            self.go_on_reading(session, group).await?;
        }
        let late: Vec<_> = session.groups.resyncing.extract_if(.., |_, at| *at <= now).collect();
        for (group, _) in late {
            self.go_on_reading(session, group).await?;
        }
        self.ask_for_keys(session).await?;
        self.drive_changes(session).await
    }

    /// A group waits for an account's chain: what comes of it until then is read again.
    pub(super) async fn stall(
        &mut self,
        session: &mut Session,
        group: GroupId,
        account: Option<AccountId>,
    ) -> Result<(), Ended> {
        session.groups.stalled.insert(group, now() + STALL);
        if let Some(account) = account {
            let address = self.address_of(account).await?;
            self.fetch(session, account, &address, Vec::new()).await?;
        }
        Ok(())
    }

    /// Groups that wait for a chain go on: an account's came.
    pub(super) async fn chain_came(&mut self, session: &mut Session) -> Result<(), Ended> {
        let stalled: Vec<_> = session.groups.stalled.keys().copied().collect();
        for group in stalled {
            self.go_on_reading(session, group).await?;
        }
        Ok(())
    }

    async fn go_on_reading(&mut self, session: &mut Session, group: GroupId) -> Result<(), Ended> {
        session.groups.stalled.remove(&group);
        let Some(chat) = self.chat(group).await? else { return Ok(()) };
        let after = Some(chat.position.to_pb());
        self.ask_home(session, &pb::GroupRewind { group: group.to_bytes(), after }).await
    }

    /// Reads a group again from where it is held: something between is missing.
    pub(super) async fn rewind(&mut self, session: &mut Session, group: GroupId) -> Result<(), Ended> {
        let now = now();
        if session.groups.rewound.get(&group).is_some_and(|at| now.duration_since(*at) < REWIND) {
            // What was sent before the home heard of the last time is still coming in.
            session.groups.stalled.entry(group).or_insert(now + REWIND);
            return Ok(());
        }
        session.groups.rewound.insert(group, now);
        self.go_on_reading(session, group).await
    }

    /// A request of the local pipeline whose refusal changes nothing here.
    async fn ask_home(
        &self,
        session: &mut Session,
        request: &impl tidings_proto::codec::FrameMessage,
    ) -> Result<(), Ended> {
        match session.local.ask::<pb::Done>(request).await {
            Ok(pb::Done {}) => Ok(()),
            Err(HomeError::Refused(refusal)) => {
                tracing::debug!(code = %refusal.code, "the home refused a request about a group");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says what was read of groups since the home was last told.
    pub(super) async fn tell_groups_read(&mut self, session: &mut Session) -> Result<(), Ended> {
        for (group, upto) in self.store.untold_groups().await? {
            self.ask_home(session, &pb::GroupMarkRead { group: group.to_bytes(), upto }).await?;
            let mut tx = self.store.begin().await?;
            post_store::put_told(&mut tx, group, upto).await?;
            tx.commit().await.map_err(StoreError::from)?;
        }
        Ok(())
    }
}

impl GroupCommand {
    /// Nobody carries it out.
    pub(super) fn offline(self) {
        match self {
            Self::Create { answer, .. } => drop(answer.send(Err(Error::Offline))),
            Self::Accept(_, answer) | Self::Decline(_, answer) | Self::Change(_, _, answer) => {
                drop(answer.send(Err(Error::Offline)))
            }
            Self::Marks(_, answer) => drop(answer.send(Err(Error::Offline))),
            Self::Home(answer) => drop(answer.send(Err(Error::Offline))),
        }
    }
}

/// Opens a remote pipeline and asks once.
pub(super) async fn asked<A: tidings_proto::codec::FrameMessage>(
    connection: &quinn::Connection,
    request: &impl tidings_proto::codec::FrameMessage,
) -> Result<A, HomeError> {
    Home::pipeline_on(connection).await?.ask(request).await
}

/// What a caller hears of a failed request; a lost connection ends the session.
pub(super) fn caller<T>(result: Result<T, HomeError>) -> Result<Result<T, Error>, Ended> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(HomeError::Refused(refusal)) => Ok(Err(Error::Refused(refusal))),
        Err(error) => Err(error.into()),
    }
}

fn marks(table: Result<pb::GroupMarksTable, Error>) -> Result<Vec<MemberMark>, Error> {
    let mark = |mark: &pb::MemberMark| {
        let account = AccountId::try_from(&mark.account).ok()?;
        Some(MemberMark { account, delivered: mark.delivered, read: mark.read })
    };
    Ok(table?.marks.iter().filter_map(mark).collect())
}

/// A group's profile as members see it, or nothing that can be read.
pub(super) fn open_profile(chat: &Chat, sealed: &[u8]) -> Option<pb::GroupProfile> {
    let plain = crate::crypto::open_profile(&chat.profile_key, sealed)?;
    pb::GroupProfile::decode(plain.as_slice()).ok()
}

/// The home answered with what it cannot have meant.
pub(super) fn gone() -> HomeError {
    lost("the home answered with nothing")
}
