//! Entries of a group's log, one after the other (spec 07-groups, "The device's copy").

use prost::Message as _;
use tidings_proto::chain::GroupState;
use tidings_proto::entries;
use tidings_proto::group_log::{GroupEntry, GroupLogError, GroupPosition};
use tidings_proto::id::{AccountId, DeviceId, GroupId};
use tidings_proto::pb;
use tidings_proto::sign::sha256;

use super::Wish;
use crate::crypto::{DistributionId, SenderKey, SenderKeyError, distribution_of};
use crate::engine::session::{Session, now};
use crate::engine::{Ended, Engine, Step};
use crate::error::StoreError;
use crate::event::Event;
use crate::letter;
use crate::store::groups::posts::{self, Place, Post, PostState};
use crate::store::groups::{self, Chat, GroupStatus, keys};
use crate::store::{Tx, messages};

/// What a post turned out to be.
pub(super) enum Opened {
    /// Readable; with the key's record as it is after.
    Letter(Box<letter::PostLetter>, Vec<u8>),
    /// Read before, when it stood elsewhere.
    Before,
    /// Its key is not here.
    Waits(DistributionId),
    /// Never readable.
    Unreadable,
}

impl Engine {
    /// Takes an entry from the event stream.
    pub(in crate::engine) fn group_event<'a>(
        &'a mut self,
        session: &'a mut Session,
        event: pb::GroupEvent,
    ) -> Step<'a, ()> {
        Box::pin(self.take_record(session, event))
    }

    async fn take_record(&mut self, session: &mut Session, event: pb::GroupEvent) -> Result<(), Ended> {
        session.groups.heard = now();
        let (Ok(group), Some(record)) = (GroupId::try_from(&event.group), event.record) else {
            return Ok(());
        };
        let Some(chat) = self.chat(group).await? else { return Ok(()) };
        if chat.status == GroupStatus::Invited {
            // Only the devices of members are shipped to: another device of this account has accepted.
            self.adopt_group(session, &chat);
            return Ok(());
        }
        let followed = matches!(chat.status, GroupStatus::Joining | GroupStatus::Member);
        let waits =
            session.groups.stalled.contains_key(&group) || session.groups.resyncing.contains_key(&group);
        let Some(state) = chat.state.clone().filter(|_| followed && chat.damaged.is_none() && !waits) else {
            return Ok(());
        };
        if let Ok(inner) = pb::Entry::decode(record.entry.clone())
            && inner.r#type == entries::GROUP_VOID
        {
            return self.void(session, chat, &state, &inner).await;
        }
        let parsed = match GroupEntry::parse(&record.entry) {
            Ok(parsed) => parsed,
            Err(error) => return self.damage(chat, &error).await,
        };
        if parsed.seq() <= chat.position.seq {
            return self.earlier(session, chat, &parsed, record).await;
        }
        match chat.position.follow(&state, &record.entry) {
            Ok(next) => self.entry_of_log(session, chat, next, record).await,
            Err(GroupLogError::NotNext { .. }) => self.rewind(session, group).await,
            Err(GroupLogError::From | GroupLogError::Term { .. }) => self.resync(session, group).await,
            Err(error) => self.damage(chat, &error).await,
        }
    }

    async fn entry_of_log(
        &mut self,
        session: &mut Session,
        chat: Chat,
        (at, entry): (GroupPosition, GroupEntry),
        record: pb::GroupRecord,
    ) -> Result<(), Ended> {
        let group = chat.id;
        let taken = match entry {
            GroupEntry::Message(message, _) => {
                let post = message.post.unwrap_or_default();
                self.post_entry(session, &chat, at, post).await?
            }
            GroupEntry::Link(link, _) => {
                let link = link.link.unwrap_or_default();
                self.link_entry(session, chat, at, (link, record.evidence)).await?
            }
            GroupEntry::Other { .. } => {
                let mut tx = self.store.begin().await?;
                self.arrive(&mut tx, group, at).await?;
                tx.commit().await.map_err(StoreError::from)?;
                true
            }
        };
        if taken {
            session.groups.acks.insert(group, at);
        }
        Ok(())
    }

    /// Moves a group's place, here and in memory. If the transaction fails the session ends, and memory with it.
    pub(super) async fn arrive(
        &mut self,
        tx: &mut Tx,
        group: GroupId,
        at: GroupPosition,
    ) -> Result<(), StoreError> {
        groups::move_chat(tx, group, &at).await?;
        groups::put_place(tx, group, &at, None).await?;
        if let Some(chat) = self.chats.get_mut(&group) {
            chat.position = at;
        }
        Ok(())
    }

    /// Entries that nobody has any more, and that were no links.
    async fn void(
        &mut self,
        session: &mut Session,
        chat: Chat,
        state: &GroupState,
        entry: &pb::Entry,
    ) -> Result<(), Ended> {
        let Ok(void) = pb::GroupVoid::decode(entry.body.clone()) else { return Ok(()) };
        if void.to <= chat.position.seq {
            return Ok(());
        }
        match chat.position.past_void(state, &void) {
            Ok(at) => {
                let mut tx = self.store.begin().await?;
                self.arrive(&mut tx, chat.id, at).await?;
                groups::loosen(&mut tx, chat.id).await?;
                tx.commit().await.map_err(StoreError::from)?;
                session.groups.acks.insert(chat.id, at);
                Ok(())
            }
            Err(GroupLogError::Void { .. }) => self.rewind(session, chat.id).await,
            Err(error) => self.damage(chat, &error).await,
        }
    }

    /// An entry at a place that was read: the same again, or the beginning of a term that undoes what stood there.
    async fn earlier(
        &mut self,
        session: &mut Session,
        chat: Chat,
        parsed: &GroupEntry,
        record: pb::GroupRecord,
    ) -> Result<(), Ended> {
        if parsed.term() <= chat.position.term {
            session.groups.acks.insert(chat.id, chat.position);
            return Ok(());
        }
        let body = parsed.link().and_then(|link| pb::GroupLinkBody::decode(link.body.clone()).ok());
        let from = body.and_then(|body| body.hub_succession).and_then(|succession| succession.from);
        let Ok(from) = GroupPosition::parse(from.as_ref()) else {
            return self.resync(session, chat.id).await;
        };
        let known = self.store.place(chat.id, from.seq).await? == Some(from);
        let state = self.store.state_at(chat.id, from.seq).await?;
        let Some(state) = state.filter(|_| known && from.seq.checked_add(1) == Some(parsed.seq())) else {
            return self.resync(session, chat.id).await;
        };
        // The new term has to stand before anything is undone for it.
        let mut chains = super::evidence::beside(&record.evidence);
        let link = parsed.link().cloned().unwrap_or_default();
        match self.judge(&mut chains, Some(&state), &link).await? {
            Ok(_) => {}
            Err(error) if error.missing().is_some() => return self.resync(session, chat.id).await,
            Err(error) => return self.damage(chat, &error).await,
        }
        let before = chat.clone();
        let chat = Chat { state: Some(state.clone()), position: from, ..chat };
        let mut tx = self.store.begin().await?;
        groups::put_chat(&mut tx, &chat).await?;
        let void = groups::cut(&mut tx, chat.id, from.seq).await?;
        tx.commit().await.map_err(StoreError::from)?;
        let (group, position) = (chat.id, chat.position);
        self.chats.insert(group, chat.clone());
        self.tell(Event::GroupRewritten { group, after: from.seq });
        self.wish_again(session, &before, &void);
        match position.follow(&state, &record.entry) {
            Ok(next) => Box::pin(self.entry_of_log(session, chat, next, record)).await,
            Err(error) => self.damage(chat, &error).await,
        }
    }

    /// What this device changed and a new term undid: what nobody else would do again is done again (K2).
    fn wish_again(&mut self, session: &mut Session, chat: &Chat, void: &[Vec<u8>]) {
        for body in void {
            let Ok(body) = pb::GroupLinkBody::decode(body.as_slice()) else { continue };
            if body.author.as_ref().is_none_or(|author| author.device != self.me.device.to_bytes()) {
                continue;
            }
            if let Some(removed) = &body.remove_members {
                let accounts =
                    removed.accounts.iter().filter_map(|id| AccountId::try_from(id).ok()).collect();
                self.wish(session, chat.id, Wish::Remove(accounts), None);
            } else if body.leave.is_some() {
                self.wish(session, chat.id, Wish::Leave, None);
            } else if body.advance.is_some() {
                self.wish(session, chat.id, Wish::Advance, None);
            } else if body.accept.is_some() {
                self.wish(session, chat.id, Wish::Accept, None);
            }
        }
    }

    /// The log cannot be followed: shown, and nothing is sent there.
    pub(super) async fn damage(
        &mut self,
        mut chat: Chat,
        error: &(dyn std::error::Error + Sync),
    ) -> Result<(), Ended> {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        tracing::warn!(%reason, "a group's log cannot be followed");
        chat.damaged = Some(reason.clone());
        let mut tx = self.store.begin().await?;
        groups::put_chat(&mut tx, &chat).await?;
        tx.commit().await.map_err(StoreError::from)?;
        let group = chat.id;
        self.chats.insert(group, chat);
        self.tell(Event::GroupDamaged { group, reason });
        Ok(())
    }

    /// A message in the log. False: it waits for a chain.
    async fn post_entry(
        &mut self,
        session: &mut Session,
        chat: &Chat,
        at: GroupPosition,
        post: pb::GroupPost,
    ) -> Result<bool, Ended> {
        let group = chat.id;
        let Some(state) = &chat.state else { return Ok(false) };
        let ids = (AccountId::try_from(&post.sender), DeviceId::try_from(&post.sender_device));
        let member = state.full_member(&self.me.account).is_some();
        let ((Ok(sender), Ok(device)), true) = (ids, member) else {
            // Nothing that stands before this account's own joining is for it.
            let mut tx = self.store.begin().await?;
            self.arrive(&mut tx, group, at).await?;
            groups::loosen(&mut tx, group).await?;
            tx.commit().await.map_err(StoreError::from)?;
            return Ok(true);
        };
        if state.full_member(&sender).is_some() && !self.lists(sender, device).await? {
            let asked = session.later.contains_key(&sender);
            if !asked {
                self.stall(session, group, Some(sender)).await?;
                session.later.insert(sender, now() + super::STALL);
                return Ok(false);
            }
        }
        let allowed = allowed(state, sender, &post) && self.lists(sender, device).await?;
        let opened = if !allowed {
            Opened::Unreadable
        } else if device == self.me.device {
            Opened::Before
        } else {
            self.open_post(group, (sender, device), &post).await?
        };
        let place = Place { term: at.term, seq: at.seq };
        let mut tx = self.store.begin().await?;
        self.arrive(&mut tx, group, at).await?;
        let dense = groups::count(&mut tx, group, (sender, device), post.number).await?;
        let event = if allowed && dense {
            let entry = Placed { group, sender, device, place, local: None };
            self.effect_of_post(&mut tx, &entry, opened, &post).await?
        } else {
            Some(Event::PostRefused { group, sender, seq: at.seq })
        };
        tx.commit().await.map_err(StoreError::from)?;
        event.into_iter().for_each(|event| self.tell(event));
        Ok(true)
    }

    /// Whether a device is, or was, on an account's list as far as it is known here.
    async fn lists(&mut self, account: AccountId, device: DeviceId) -> Result<bool, StoreError> {
        let chain = self.chain(account).await?;
        Ok(chain.is_some_and(|chain| {
            let state = chain.state();
            state.device(&device).is_some() || state.was_removed(&device)
        }))
    }

    /// Decrypts a post of another device, and checks what is inside against what is outside.
    pub(super) async fn open_post(
        &mut self,
        group: GroupId,
        (sender, device): (AccountId, DeviceId),
        post: &pb::GroupPost,
    ) -> Result<Opened, StoreError> {
        let Ok(distribution) = distribution_of(&post.ciphertext) else { return Ok(Opened::Unreadable) };
        let Some((account, record)) = self.store.sender_key(group, device, distribution).await? else {
            return Ok(Opened::Waits(distribution));
        };
        if account != sender {
            return Ok(Opened::Unreadable);
        }
        let key = SenderKey { device, distribution, record: Some(&record) };
        match key.decrypt(&post.ciphertext) {
            Ok((plaintext, record)) => match letter::read_post(&group, post, &plaintext) {
                Ok(letter) => Ok(Opened::Letter(Box::new(letter), record)),
                Err(error) => {
                    tracing::warn!(%error, "a post contradicts its envelope");
                    Ok(Opened::Unreadable)
                }
            },
            Err(SenderKeyError::Duplicate) => Ok(Opened::Before),
            Err(SenderKeyError::Missing) => Ok(Opened::Waits(distribution)),
            Err(error) => {
                tracing::warn!(%error, "a post cannot be read");
                Ok(Opened::Unreadable)
            }
        }
    }

    /// What a post does to the store; what to tell of it.
    pub(super) async fn effect_of_post(
        &self,
        tx: &mut Tx,
        entry: &Placed,
        opened: Opened,
        post: &pb::GroupPost,
    ) -> Result<Option<Event>, StoreError> {
        let Placed { group, sender, device, place, .. } = *entry;
        match opened {
            Opened::Letter(letter, record) => {
                let distribution = distribution_of(&post.ciphertext).unwrap_or_default();
                keys::put_sender_key(tx, group, (sender, device), distribution, (&record, 0)).await?;
                read(tx, entry, *letter, post).await
            }
            Opened::Before => {
                let digest = sha256(&post.ciphertext);
                let Some(id) = posts::unplaced_of(tx, group, device, digest.as_ref()).await? else {
                    return Ok(None);
                };
                posts::set_placed(tx, id, place).await?;
                let own = device == self.me.device;
                Ok(own.then_some(Event::PostPlaced { group, id, place }))
            }
            Opened::Waits(distribution) => {
                let at = (place.term, place.seq);
                keys::put_undecrypted(tx, group, at, (device, distribution), &post.encode_to_vec()).await?;
                Ok(Some(Event::PostUnreadable { group, sender, seq: place.seq }))
            }
            Opened::Unreadable => Ok(Some(Event::PostRefused { group, sender, seq: place.seq })),
        }
    }
}

/// Stores a readable post.
async fn read(
    tx: &mut Tx,
    entry: &Placed,
    letter: letter::PostLetter,
    post: &pb::GroupPost,
) -> Result<Option<Event>, StoreError> {
    let Placed { group, sender, device, place, local } = *entry;
    let Some((text, reason)) = shown(&letter.content) else { return Ok(None) };
    let local = match local {
        Some(local) => local,
        None => messages::next_seq(tx).await?,
    };
    let message = Post {
        local,
        group,
        id: letter.id,
        place: Some(place),
        sender,
        device,
        number: post.number,
        text,
        reply_to: letter.reply_to,
        mentions: letter.mentions,
        sent_at_ms: letter.sent_at_ms,
        state: PostState::Received,
        reason,
    };
    if posts::put_post(tx, &message, Some(sha256(&post.ciphertext).as_ref())).await? {
        return Ok(Some(Event::Post(Box::new(message))));
    }
    // Encrypted anew after a refusal, or it stood elsewhere before: one id, one post.
    if posts::is_unplaced(tx, letter.id, device).await? {
        posts::set_placed(tx, letter.id, place).await?;
    }
    Ok(None)
}

/// Where a post stands and whose it is; with its place among the posts, if that was given before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) group: GroupId,
    pub(super) sender: AccountId,
    pub(super) device: DeviceId,
    pub(super) place: Place,
    pub(super) local: Option<u64>,
}

/// The rules that the hub had to keep: who may post, and not under a head older than the last rotation (settled 45).
fn allowed(state: &GroupState, sender: AccountId, post: &pb::GroupPost) -> bool {
    let head = post.chain_head.as_ref();
    let known = match post.chain_number {
        number if number == state.number() => head == state.head().as_ref(),
        number if number == state.rotated() => head == state.rotated_head().as_ref(),
        number => number < state.number(),
    };
    state.may_post(&sender) && post.chain_number >= state.rotated() && known
}

/// The text of a content, or why there is none; nothing for what is not for people.
fn shown(content: &pb::Content) -> Option<(String, Option<String>)> {
    match &content.body {
        Some(pb::content::Body::Text(text)) => Some((text.text.clone(), None)),
        None => Some((String::new(), Some("a newer version of the program can show this post".to_owned()))),
        Some(_) => None,
    }
}
