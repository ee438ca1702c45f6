//! What the hub signs of the end of the log, and what the home says is missing (spec 07-groups, "Signed heads").

use tidings_proto::group_log::{GroupHead, GroupPosition};
use tidings_proto::id::GroupId;
use tidings_proto::pb;

use super::pages::{Purpose, Reading};
use crate::engine::session::{Session, now};
use crate::engine::{Ended, Engine, Step};
use crate::error::StoreError;
use crate::event::Event;
use crate::store::groups::posts::{self, PostState};
use crate::store::groups::{self, Chat, GroupStatus};

impl Engine {
    /// Takes a signed head from the event stream.
    pub(in crate::engine) fn group_head<'a>(
        &'a mut self,
        session: &'a mut Session,
        event: pb::GroupHeadEvent,
    ) -> Step<'a, ()> {
        Box::pin(self.take_head(session, event))
    }

    async fn take_head(&mut self, session: &mut Session, event: pb::GroupHeadEvent) -> Result<(), Ended> {
        session.groups.heard = now();
        let Some(signed) = event.head else { return Ok(()) };
        let mut chains = super::evidence::beside(&event.evidence);
        let head = match self.judge_head(&mut chains, &signed).await? {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(%error, "a signed head was not taken");
                return Ok(());
            }
        };
        self.learn(event.evidence).await?;
        let Some(chat) = self.chat(head.group).await? else {
            // A group that this device does not know yet: it is read when its invitation comes.
            session.groups.acks.insert(head.group, head.position);
            return Ok(());
        };
        let followed = matches!(chat.status, GroupStatus::Joining | GroupStatus::Member);
        let Some(state) = chat.state.as_ref().filter(|_| followed) else { return Ok(()) };
        if let Some(held) = &chat.head
            && let Ok(held) = self.judge_head(&mut chains, held).await?
            && held.contradicts(&head)
        {
            return self.fork(chat, signed).await;
        }
        let known = self.store.place(chat.id, head.position.seq).await?;
        if known.is_some_and(|known| known.term == head.position.term && known != head.position) {
            // Both bear the hub's name; only a head that was signed proves it, and the home may have made ours up.
            return self.resync(session, chat.id).await;
        }
        if !head.is_of(state) || known != Some(head.position) {
            return Ok(());
        }
        self.settle(chat, &head, signed, (event.all_delivered, event.all_read)).await
    }

    /// The log up to here is as the hub signed it.
    async fn settle(
        &mut self,
        mut chat: Chat,
        head: &GroupHead,
        signed: pb::SignedGroupHead,
        (delivered, read): (u64, u64),
    ) -> Result<(), Ended> {
        let group = chat.id;
        // None of them says anything of what this device has not.
        let upto = |mark: u64| mark.min(chat.position.seq);
        let marks = [
            (PostState::Stable, chat.stable, upto(head.stable)),
            (PostState::DeliveredToAll, chat.all_delivered, upto(delivered)),
            (PostState::ReadByAll, chat.all_read, upto(read)),
        ];
        chat.head = Some(signed);
        chat.stable = chat.stable.max(upto(head.stable));
        chat.all_delivered = chat.all_delivered.max(upto(delivered));
        chat.all_read = chat.all_read.max(upto(read));
        let (mut events, mut moved) = (Vec::new(), false);
        let mut tx = self.store.begin().await?;
        groups::put_chat(&mut tx, &chat).await?;
        for (state, before, upto) in marks {
            moved |= state == PostState::Stable && upto > before;
            if upto > 0 && posts::raise(&mut tx, group, upto, state).await? > 0 {
                events.push(Event::GroupProgress { group, upto, state });
            }
        }
        if moved {
            groups::prune_places(&mut tx, group, chat.stable).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        self.chats.insert(group, chat);
        events.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }

    /// One server signed two histories: both heads are kept as proof, the user is told, and nothing is sent there
    /// before a new term.
    async fn fork(&mut self, mut chat: Chat, other: pb::SignedGroupHead) -> Result<(), Ended> {
        let group = chat.id;
        let fresh = chat.fork.is_none();
        chat.fork = Some(other);
        let mut tx = self.store.begin().await?;
        groups::put_chat(&mut tx, &chat).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.chats.insert(group, chat);
        if fresh {
            self.tell(Event::GroupFork { group });
        }
        Ok(())
    }

    /// What lies between this device's place and another is not at the home any more.
    pub(in crate::engine) fn group_gap<'a>(
        &'a mut self,
        session: &'a mut Session,
        gap: pb::GroupGap,
    ) -> Step<'a, ()> {
        Box::pin(self.take_gap(session, gap))
    }

    async fn take_gap(&mut self, session: &mut Session, gap: pb::GroupGap) -> Result<(), Ended> {
        session.groups.heard = now();
        let (Ok(group), Ok(first)) =
            (GroupId::try_from(&gap.group), GroupPosition::parse(gap.first.as_ref()))
        else {
            return Ok(());
        };
        let Some(chat) = self.chat(group).await? else { return Ok(()) };
        if first.seq <= chat.position.seq {
            return Ok(());
        }
        self.tell(Event::GroupGap { group, from: chat.position.seq.saturating_add(1), to: first.seq });
        self.resync(session, group).await
    }

    /// Fetches the state of a group anew: the entries between are not to be had, or not of this history.
    pub(super) async fn resync(&mut self, session: &mut Session, group: GroupId) -> Result<(), Ended> {
        if session.groups.resyncing.contains_key(&group) {
            return Ok(());
        }
        let Some(chat) = self.chat(group).await? else { return Ok(()) };
        session.groups.resyncing.insert(group, now() + super::READING);
        let reading = Reading::new(group, Purpose::Resync, chat.position.seq);
        self.read(session, reading);
        Ok(())
    }

    /// Reads a group that another device of this account has joined; what comes of its log meanwhile comes again.
    pub(super) fn adopt_group(&self, session: &mut Session, chat: &Chat) {
        if session.groups.resyncing.insert(chat.id, now() + super::READING).is_none() {
            self.read(session, Reading::of(chat, Purpose::Adopt));
        }
    }
}
