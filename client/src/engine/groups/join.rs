//! Making a group and joining one: its chain is verified from the genesis, or from the checkpoint that an invitation
//! names (spec 07-groups, "Joining").

use prost::Message as _;
use rand::Rng as _;
use tidings_proto::chain::group::{Chains, Missing, NewGroup, Policy, genesis};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::group_log::{GroupPosition, link_entry};
use tidings_proto::id::GroupId;
use tidings_proto::pb;
use tokio::sync::oneshot;

use super::links::take_profile;
use super::pages::{NotVerified, Pages, Purpose, Reading, Verified};
use super::{Answer, Answered, Wish, asked};
use crate::crypto::seal_profile;
use crate::engine::session::{Session, now};
use crate::engine::{Ended, Engine};
use crate::error::{Error, StoreError};
use crate::event::Event;
use crate::home::HomeError;
use crate::store::groups::{self, Chat, GroupStatus};

/// Chains that are asked for to read one group.
const CHAINS: u32 = 1200;

impl Engine {
    /// Makes a group and offers its genesis.
    pub(super) async fn create_group(
        &mut self,
        session: &mut Session,
        (name, description): (String, String),
        answer: oneshot::Sender<Result<GroupId, Error>>,
    ) -> Result<(), Ended> {
        let Some(home) = self.home_signer() else {
            drop(answer.send(Err(Error::Offline)));
            return Ok(());
        };
        let (mut salt, mut profile_key) = ([0; 16], [0; 32]);
        self.rng.fill_bytes(&mut salt);
        self.rng.fill_bytes(&mut profile_key);
        let profile =
            pb::GroupProfile { name: name.clone(), description: description.clone(), ..Default::default() };
        let sealed = seal_profile(&profile_key, &profile.encode_to_vec(), &mut self.rng);
        let new = NewGroup {
            salt,
            address: self.me.address.clone(),
            hub: home.server,
            policy: Policy::default(),
            profile: sealed.into(),
        };
        let link = genesis(&self.author(), &new, &self.me.key);
        let mut chains = Chains::new();
        let state = match self.judge(&mut chains, None, &link).await? {
            Ok(state) => state,
            Err(error) => {
                drop(answer.send(Err(Error::Misuse(format!("the group cannot be made: {error}")))));
                return Ok(());
            }
        };
        let group = state.group();
        let entry = link_entry(&group, 1, 1, link.clone());
        let Ok(position) = GroupPosition::START.after(1, &entry) else { return Ok(()) };
        let mut chat = Chat::new(group, GroupStatus::Creating, profile_key);
        (chat.name, chat.description) = (name, description);
        chat.state = Some(state.clone());
        chat.position = position;
        let mut tx = self.store.begin().await?;
        groups::put_chat(&mut tx, &chat).await?;
        groups::put_link(&mut tx, &state, 1, &link).await?;
        groups::put_place(&mut tx, group, &position, Some(&state)).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.chats.insert(group, chat.clone());
        self.offer_genesis(session, &chat, Some(answer)).await
    }

    /// Offers the genesis of a group that is being made.
    pub(super) async fn offer_genesis(
        &mut self,
        session: &mut Session,
        chat: &Chat,
        answer: Option<oneshot::Sender<Result<GroupId, Error>>>,
    ) -> Result<(), Ended> {
        let Some(link) = self.store.group_link(chat.id, 0).await? else { return Ok(()) };
        let (group, connection) = (chat.id, session.connection.clone());
        let request = pb::GroupCreate { links: vec![link] };
        session
            .groups
            .asks
            .spawn(async move { Answered::Created(group, answer, asked(&connection, &request).await) });
        Ok(())
    }

    pub(super) async fn created(
        &mut self,
        _session: &mut Session,
        group: GroupId,
        answer: Option<oneshot::Sender<Result<GroupId, Error>>>,
        result: Result<pb::GroupAppended, HomeError>,
    ) -> Result<(), Ended> {
        let result = super::caller(result)?;
        let Some(mut chat) = self.chat(group).await? else { return Ok(()) };
        let status = if result.is_ok() { GroupStatus::Member } else { GroupStatus::Gone };
        if chat.status == GroupStatus::Creating {
            chat.status = status;
            let mut tx = self.store.begin().await?;
            groups::put_chat(&mut tx, &chat).await?;
            tx.commit().await.map_err(StoreError::from)?;
            self.chats.insert(group, chat.clone());
            if result.is_ok() {
                self.tell_own_devices(&chat).await?;
                self.tell(Event::GroupJoined { group });
            }
        }
        if let Some(answer) = answer {
            drop(answer.send(result.map(|_| group)));
        }
        Ok(())
    }

    /// Accepts an invitation, or declines it: reads and verifies the group first.
    pub(super) async fn decide(
        &mut self,
        session: &mut Session,
        group: GroupId,
        (accept, answer): (bool, Answer),
    ) -> Result<(), Ended> {
        let invited = |chat: &Chat| matches!(chat.status, GroupStatus::Invited | GroupStatus::Joining);
        match self.chat(group).await?.filter(invited) {
            Some(chat) if accept => self.go_on_joining(session, &chat, Some(answer)).await,
            Some(chat) => {
                self.read(session, Reading::of(&chat, Purpose::Decline(answer)));
                Ok(())
            }
            None => {
                drop(answer.send(Err(Error::Misuse("there is no invitation to this group".to_owned()))));
                Ok(())
            }
        }
    }

    /// Reads a group that this account was invited to, or is in by another device.
    pub(super) async fn go_on_joining(
        &mut self,
        session: &mut Session,
        chat: &Chat,
        answer: Option<Answer>,
    ) -> Result<(), Ended> {
        if chat.state.is_some() && chat.position.seq > 0 {
            // It was read; what is missing is the link, or its place in the log.
            self.wish(session, chat.id, Wish::Accept, answer);
            return self.drive_changes(session).await;
        }
        let own = chat.inviter == Some(self.me.account);
        let purpose = if own { Purpose::Adopt } else { Purpose::Accept(answer) };
        self.read(session, Reading::of(chat, purpose));
        Ok(())
    }

    /// Verifies pages and goes on with what they were for.
    pub(super) async fn read_pages(
        &mut self,
        session: &mut Session,
        mut reading: Reading,
        pages: Pages,
    ) -> Result<(), Ended> {
        let before = match (&reading.purpose, reading.after_seq) {
            (Purpose::Resync, after) if after > 0 && !reading.from_state => {
                self.store.state_at(reading.group, after).await?
            }
            _ => None,
        };
        match self.verify_pages(&reading, before, &pages).await? {
            Ok(verified) => {
                self.learn(pages.evidence).await?;
                for record in pages.records {
                    self.learn(record.evidence).await?;
                }
                self.take_reading(session, reading, verified).await
            }
            Err(NotVerified::Missing(Missing::Account { id, .. })) if reading.chains < CHAINS => {
                reading.chains = reading.chains.saturating_add(1);
                let after = self.head_of(id).await?;
                let connection = session.connection.clone();
                session.groups.asks.spawn(async move {
                    let links = crate::engine::fetch::account_links(&connection, id, after).await;
                    Answered::Chain(Box::new((reading, pages)), id, links)
                });
                Ok(())
            }
            Err(NotVerified::OtherState) if reading.from_state => {
                // Another checkpoint than the one vouched for: the whole chain says it all, if it is to be had.
                (reading.from_state, reading.after_seq) = (false, 0);
                self.read(session, reading);
                Ok(())
            }
            Err(NotVerified::OtherState) if matches!(reading.purpose, Purpose::Resync) => {
                reading.from_state = true;
                self.read(session, reading);
                Ok(())
            }
            Err(NotVerified::Invalid(reason)) => {
                tracing::warn!(%reason, "a group's chain is not valid");
                self.reading_ended(session, reading, Error::Violation(reason))
            }
            Err(_) => {
                let refusal = Refusal::from(Code::EVIDENCE_MISSING);
                self.reading_ended(session, reading, Error::Refused(refusal))
            }
        }
    }

    /// Holds what was read.
    async fn take_reading(
        &mut self,
        session: &mut Session,
        reading: Reading,
        verified: Verified,
    ) -> Result<(), Ended> {
        let group = reading.group;
        session.groups.resyncing.remove(&group);
        let Some(mut chat) = self.chat(group).await? else { return Ok(()) };
        let Verified { state, position, head, links } = verified;
        let me = self.me.account;
        let there = state.member(&me).map(|member| member.invited);
        if chat
            .state
            .as_ref()
            .is_some_and(|held| held.term() == state.term() && held.number() > state.number())
        {
            // The home gave less than this device has: nothing is gained.
            return Ok(());
        }
        let before = chat.status;
        chat.status = match there {
            Some(false) => GroupStatus::Member,
            Some(true) if matches!(reading.purpose, Purpose::Accept(_)) => GroupStatus::Joining,
            Some(true) => before,
            None => GroupStatus::Gone,
        };
        chat.state = Some(state.clone());
        (chat.position, chat.head, chat.damaged, chat.awaits) = (position, Some(head), None, None);
        let body = links.last().and_then(|(_, link, _)| pb::GroupLinkBody::decode(link.body.clone()).ok());
        let named =
            pb::GroupLinkBody { set_profile: Some(pb::SetProfile::default()), ..body.unwrap_or_default() };
        take_profile(&mut chat, &state, &named);
        let rewritten = before == GroupStatus::Member;
        let mut tx = self.store.begin().await?;
        if rewritten {
            groups::cut(&mut tx, group, position.seq).await?;
        }
        groups::put_chat(&mut tx, &chat).await?;
        for (seq, link, after) in &links {
            groups::put_link(&mut tx, after, *seq, link).await?;
        }
        groups::put_place(&mut tx, group, &position, Some(&state)).await?;
        groups::loosen(&mut tx, group).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.chats.insert(group, chat.clone());
        if chat.status != before {
            match chat.status {
                GroupStatus::Member => self.tell(Event::GroupJoined { group }),
                GroupStatus::Gone => self.tell(Event::GroupGone { group }),
                _ => {}
            }
        }
        session.groups.acks.insert(group, position);
        self.meet_members(session, &state).await?;
        match reading.purpose {
            Purpose::Accept(answer) if chat.status == GroupStatus::Joining => {
                self.wish(session, group, Wish::Accept, answer);
            }
            Purpose::Decline(answer) => self.wish(session, group, Wish::Leave, Some(answer)),
            Purpose::Accept(Some(answer)) => {
                let gone = chat.status == GroupStatus::Gone;
                let result = if gone { Err(Error::Refused(Code::INVITATION_REFUSED.into())) } else { Ok(()) };
                drop(answer.send(result));
                self.rewind(session, group).await?;
            }
            _ => self.rewind(session, group).await?,
        }
        Ok(())
    }

    /// Pages could not be had.
    pub(super) fn reading_failed(
        &mut self,
        session: &mut Session,
        reading: Reading,
        error: HomeError,
    ) -> Result<(), Ended> {
        match error {
            HomeError::Refused(refusal) => self.reading_ended(session, reading, Error::Refused(refusal)),
            error => Err(error.into()),
        }
    }

    fn reading_ended(&mut self, session: &mut Session, reading: Reading, error: Error) -> Result<(), Ended> {
        tracing::debug!(%error, "a group was not read");
        // A group that cannot be read anew is tried again after a while.
        if matches!(reading.purpose, Purpose::Resync | Purpose::Adopt) {
            session.groups.resyncing.insert(reading.group, now() + super::STALL);
        }
        if let Purpose::Accept(Some(answer)) | Purpose::Decline(answer) = reading.purpose {
            drop(answer.send(Err(error)));
        }
        Ok(())
    }

    /// An invitation was stored. One from another device of this account is followed at once (K5).
    pub(in crate::engine) async fn invited(
        &mut self,
        session: &mut Session,
        invitation: &pb::GroupInvitation,
    ) -> Result<(), Ended> {
        let Ok(group) = GroupId::try_from(&invitation.group) else { return Ok(()) };
        if let Some(known) = self.chats.get(&group)
            && !matches!(known.status, GroupStatus::Invited | GroupStatus::Gone)
        {
            return Ok(());
        }
        self.chats.remove(&group);
        match self.chat(group).await? {
            Some(chat) if chat.inviter == Some(self.me.account) => {
                self.go_on_joining(session, &chat, None).await
            }
            _ => Ok(()),
        }
    }
}
