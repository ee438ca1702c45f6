//! Own posts: from the store to a submission, and what becomes of them (spec 07-groups, "Posts").
//!
//! | event | a post's state |
//! |---|---|
//! | written | queued |
//! | the own home took it | accepted |
//! | refused as stale, or out of number | queued: encrypted anew under the same number and id, in order |
//! | refused for ever | failed; those behind it move up |
//! | in the own copy of the log | placed, then stable, delivered to all, read by all |
//! | undone by a new term | accepted: its home offers it again |

use prost::Message as _;
use rand::Rng as _;
use tidings_proto::chain::GroupState;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::{GroupId, LinkId, MessageId};
use tidings_proto::log::Position;
use tidings_proto::pb;
use tidings_proto::sign::sha256;

use crate::crypto::{SenderKey, commitment, seal_plaintext};
use crate::engine::session::{Session, put_position};
use crate::engine::{Ended, Engine};
use crate::error::StoreError;
use crate::event::Event;
use crate::store::errands;
use crate::store::groups::keys::{self, OwnKey};
use crate::store::groups::posts::{self, Post};
use crate::store::groups::{self, Chat, GroupStatus};
use crate::store::queue::{self, Submission};

/// How often one post is encrypted anew after refusals that can be mended.
const REPAIRS: u32 = 8;

/// A refusal that another encryption mends.
fn mends(code: Code) -> bool {
    matches!(code, Code::STALE_HEAD | Code::NUMBER_GAP)
}

impl Engine {
    /// Turns waiting posts into stored submissions. False: there was nothing that could be.
    pub(in crate::engine) async fn prepare_posts(
        &mut self,
        session: &mut Session,
        room: u32,
    ) -> Result<bool, Ended> {
        let mut made = 0_u32;
        for group in self.store.waiting_groups().await? {
            let Some(chat) = self.chat(group).await? else { continue };
            if chat.status == GroupStatus::Gone {
                self.fail_posts(group, Code::NOT_A_MEMBER.text()).await?;
                continue;
            }
            let Some(state) = self.sendable(session, &chat) else { continue };
            let (key, given) = self.ready_key(group, &state).await?;
            if given > 0 {
                // The keys go first.
                return Ok(true);
            }
            if self.keys_under_way(session, group).await? {
                continue;
            }
            made =
                made.saturating_add(self.encrypt_posts(&chat, &state, key, room.saturating_sub(made)).await?);
            if made >= room {
                break;
            }
        }
        Ok(made > 0)
    }

    /// The state to encrypt under, if anything can be sent to a group now.
    fn sendable(&self, session: &Session, chat: &Chat) -> Option<GroupState> {
        let waits = session.groups.stalled.contains_key(&chat.id)
            || session.groups.resyncing.contains_key(&chat.id)
            || chat.awaits.is_some();
        let open = chat.status == GroupStatus::Member && chat.damaged.is_none() && chat.fork.is_none();
        let state = chat.state.as_ref().filter(|_| open && !waits)?;
        state.full_member(&self.me.account).map(|_| state.clone())
    }

    /// Whether keys wait for a chain or bundles that are being fetched: a moment, and the post can be read at once.
    async fn keys_under_way(&self, session: &Session, group: GroupId) -> Result<bool, StoreError> {
        let awaited = errands::awaited(&self.store, group).await?;
        Ok(awaited.iter().any(|account| session.fetching.contains(account)))
    }

    async fn encrypt_posts(
        &mut self,
        chat: &Chat,
        state: &GroupState,
        mut key: OwnKey,
        room: u32,
    ) -> Result<u32, Ended> {
        let mut made = 0;
        for waiting in self.store.waiting_posts(chat.id).await? {
            if made >= room || key.posts >= tidings_proto::limits::SENDER_KEY_MESSAGES_MAX {
                break;
            }
            match (waiting.encrypted, waiting.under_way) {
                (true, _) => continue,
                // Its former submission is unanswered: nothing overtakes it.
                (false, true) => break,
                (false, false) => {}
            }
            if waiting.post.text.len() > crate::client::TEXT_BYTES_MAX {
                self.fail_post(&waiting.post, Code::TOO_LARGE.text()).await?;
                continue;
            }
            self.encrypt_post(chat, state, &mut key, waiting.post).await?;
            made += 1;
        }
        Ok(made)
    }

    async fn encrypt_post(
        &mut self,
        chat: &Chat,
        state: &GroupState,
        key: &mut OwnKey,
        mut post: Post,
    ) -> Result<(), Ended> {
        let broken = || StoreError::Inconsistent { table: "post", column: "text" };
        post.number = self.store.own_number(chat.id).await?.saturating_add(1);
        let mut franking = [0; 32];
        self.rng.fill_bytes(&mut franking);
        let header = pb::PlaintextHeader {
            message_id: post.id.to_bytes(),
            sender_account: self.me.account.to_bytes(),
            sender_device: self.me.device.to_bytes(),
            conversation: chat.id.to_bytes(),
            class: pb::Class::Content.into(),
            number: post.number,
            lifetime_secs: 0,
            sender_head: self.own.head().to_bytes(),
            sender_record: self.store.value("record-hash").await?.unwrap_or_default().into(),
            recipient_head: state.head().to_bytes(),
            franking_key: bytes::Bytes::copy_from_slice(&franking),
            sent_at_ms: post.sent_at_ms,
            seen: Some(chat.position.to_pb()),
        }
        .encode_to_vec();
        let content = content_of(&post).encode_to_vec();
        let plaintext = seal_plaintext(&header, &content).map_err(|_| broken())?;
        let record = self.own_record(chat.id, key.distribution).await?;
        let sender =
            SenderKey { device: self.me.device, distribution: key.distribution, record: Some(&record) };
        let (ciphertext, record) = sender.encrypt(&plaintext, &mut self.rng).map_err(|error| {
            tracing::error!(%error, "the own sender key is unusable");
            StoreError::Inconsistent { table: "sender_key", column: "record" }
        })?;
        key.posts = key.posts.saturating_add(1);
        let counter = self.store.counter().await?.saturating_add(1);
        let digest = sha256(&ciphertext);
        let payload = pb::Payload {
            device: bytes::Bytes::new(),
            kind: pb::PayloadKind::SenderKey.into(),
            ciphertext: ciphertext.into(),
        };
        let submit = pb::Submit {
            counter,
            class: pb::Class::Content.into(),
            to_head: state.head().to_bytes(),
            own_head: self.own.head().to_bytes(),
            payloads: vec![payload],
            commitment: commitment(&franking, &header, &content).to_vec().into(),
            group: chat.id.to_bytes(),
            group_number: post.number,
            to_head_number: state.number(),
            ..Default::default()
        };
        let own = (self.me.account, self.me.device);
        let mut tx = self.store.begin().await?;
        keys::put_sender_key(&mut tx, chat.id, own, key.distribution, (&record, 0)).await?;
        keys::put_own_key(&mut tx, chat.id, key).await?;
        posts::set_encrypted(&mut tx, &post, counter, digest.as_ref()).await?;
        let bytes = submit.encode_to_vec().into();
        queue::put_submission(&mut tx, Submission { counter, message: Some(post.id), bytes }).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// The home took a post. False: the submission carried none.
    pub(in crate::engine) async fn post_accepted(
        &mut self,
        counter: u64,
        id: MessageId,
        accepted: &pb::Accepted,
    ) -> Result<bool, Ended> {
        let Some(post) = self.store.post(id).await? else { return Ok(false) };
        let mut tx = self.store.begin().await?;
        let taken = queue::take_submission(&mut tx, counter).await?;
        let carried = posts::set_accepted(&mut tx, id, counter).await?;
        if let Some(taken) = taken.filter(|_| carried && post.place.is_none()) {
            queue::keep(&mut tx, &taken, id, accepted.expires_at_ms).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        if carried {
            self.tell(Event::PostAccepted { group: post.group, id });
        }
        Ok(true)
    }

    /// The home refused a post. False: the submission carried none.
    pub(in crate::engine) async fn post_refused(
        &mut self,
        counter: u64,
        id: MessageId,
        refusal: &Refusal,
    ) -> Result<bool, Ended> {
        let Some(post) = self.store.post(id).await? else { return Ok(false) };
        let mut tx = self.store.begin().await?;
        queue::take_submission(&mut tx, counter).await?;
        let carried = posts::is_carried(&mut tx, id, counter).await?;
        tx.commit().await.map_err(StoreError::from)?;
        if carried {
            self.mend_posts(post.group, &post, refusal).await?;
        }
        Ok(true)
    }

    /// A post and all later ones of this device were not taken: mended, or failed.
    async fn mend_posts(&mut self, group: GroupId, post: &Post, refusal: &Refusal) -> Result<(), Ended> {
        let tries = self.repairs.entry(post.id).or_default();
        *tries = tries.saturating_add(1);
        let mend = mends(refusal.code) && *tries <= REPAIRS;
        let reason = refusal.code.text();
        let awaits = LinkId::try_from(&refusal.head).ok();
        let awaits = match awaits.filter(|_| mend && refusal.code == Code::STALE_HEAD) {
            Some(head) if !self.store.holds_link(group, &head).await? => Some(head),
            _ => None,
        };
        let chat = self.chat(group).await?;
        let mut tx = self.store.begin().await?;
        posts::requeue(&mut tx, group, self.me.device, post.number).await?;
        if !mend {
            posts::set_failed(&mut tx, post.id, reason).await?;
        }
        if let Some(chat) = chat.filter(|_| awaits.is_some()) {
            let chat = Chat { awaits, ..chat };
            groups::put_chat(&mut tx, &chat).await?;
            tx.commit().await.map_err(StoreError::from)?;
            self.chats.insert(group, chat);
        } else {
            tx.commit().await.map_err(StoreError::from)?;
        }
        if !mend {
            self.repairs.remove(&post.id);
            self.tell(Event::PostFailed { group, id: post.id, reason: reason.to_owned() });
        }
        Ok(())
    }

    /// What became of a post of this device, where the log will not tell.
    pub(in crate::engine) async fn group_notice(
        &mut self,
        session: &mut Session,
        notice: pb::GroupNotice,
        at: &Position,
    ) -> Result<(), Ended> {
        let group = GroupId::try_from(&notice.group).ok();
        let chat = match group {
            Some(group) => self.chat(group).await?,
            None => None,
        };
        match (chat, notice.what) {
            (Some(mut chat), Some(pb::group_notice::What::PendingSinceMs(since_ms))) => {
                let fresh = chat.waiting_ms.is_none();
                chat.waiting_ms = Some(since_ms);
                let group = chat.id;
                let mut tx = self.store.begin().await?;
                groups::put_chat(&mut tx, &chat).await?;
                put_position(&mut tx, at).await?;
                tx.commit().await.map_err(StoreError::from)?;
                self.chats.insert(group, chat);
                if fresh {
                    self.tell(Event::GroupWaiting { group, since_ms });
                }
                return Ok(());
            }
            (Some(chat), Some(pb::group_notice::What::Refused(failure))) if notice.number > 0 => {
                let refusal = Refusal::from(failure);
                let post = self.store.own_post(chat.id, self.me.device, notice.number).await?;
                if let Some(post) = post.filter(|post| post.place.is_none()) {
                    self.mend_posts(chat.id, &post, &refusal).await?;
                }
            }
            (Some(chat), Some(pb::group_notice::What::Refused(failure))) => {
                // A link that went void with its term: those that this device repeats it repeats by itself.
                let reason = Refusal::from(failure).code.text().to_owned();
                self.tell(Event::GroupChangeUndone { group: chat.id, reason });
            }
            _ => {}
        }
        self.moved(at).await?;
        self.send_waiting(session).await
    }

    async fn fail_posts(&mut self, group: GroupId, reason: &str) -> Result<(), Ended> {
        for waiting in self.store.waiting_posts(group).await? {
            self.fail_post(&waiting.post, reason).await?;
        }
        Ok(())
    }

    async fn fail_post(&mut self, post: &Post, reason: &str) -> Result<(), Ended> {
        let mut tx = self.store.begin().await?;
        posts::set_failed(&mut tx, post.id, reason).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.tell(Event::PostFailed { group: post.group, id: post.id, reason: reason.to_owned() });
        Ok(())
    }
}

/// What a post says.
fn content_of(post: &Post) -> pb::Content {
    let text = pb::Text { text: post.text.clone() };
    pb::Content {
        body: Some(pb::content::Body::Text(text)),
        mentions: post.mentions.iter().map(tidings_proto::id::AccountId::to_bytes).collect(),
        reply_to_place: post.reply_to.map(|place| pb::GroupPlace { term: place.term, seq: place.seq }),
        ..Default::default()
    }
}
