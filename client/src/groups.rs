//! The handle's side of groups: what an app calls (spec 07-groups).

use rand::Rng as _;
use tidings_proto::chain::group::{Policy, Rank, ServerRef};
use tidings_proto::id::{AccountId, GroupId, MessageId};
use tidings_proto::name::Address;

use crate::client::{Client, TEXT_BYTES_MAX, generator};
use crate::engine::{Command, GroupCommand, HomeSigner, MemberMark, Wish, now_ms};
use crate::error::{Error, StoreError};
use crate::store::groups::GroupStatus;
use crate::store::groups::posts::{self, Place, Post, PostState};
use crate::store::messages;

/// What a post is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPost {
    /// The text, at most [`TEXT_BYTES_MAX`] bytes.
    pub text: String,
    /// The post that it answers, by its place in the log.
    pub reply_to: Option<Place>,
    /// Whom it names.
    pub mentions: Vec<AccountId>,
}

impl From<&str> for NewPost {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }
}

impl From<String> for NewPost {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl Client {
    /// Makes a group, with this account as its owner and its home as hub and first keeper. Name and description are
    /// sealed: only members and invited accounts can read them.
    ///
    /// # Errors
    /// [`Error::Offline`]; [`Error::Refused`] with the home's reason.
    pub async fn create_group(
        &self,
        name: impl Into<String>,
        description: impl Into<String>,
    ) -> Result<GroupId, Error> {
        let (name, description) = (name.into(), description.into());
        self.group_command(|answer| GroupCommand::Create { name, description, answer }).await
    }

    /// Invites the accounts at these addresses. Each gets an invitation that only it can read; it is a member when it
    /// accepts. Those that are members or invited already are passed over.
    ///
    /// # Errors
    /// [`Error::Refused`] if an address cannot be resolved, the rank is too low or the group is full;
    /// [`Error::Offline`].
    pub async fn invite(&self, group: GroupId, addresses: &[Address]) -> Result<Vec<AccountId>, Error> {
        let mut accounts = Vec::new();
        for address in addresses {
            let contact = self.resolve(address).await?;
            if contact.forked {
                return Err(Error::Fork(contact.address.to_string()));
            }
            accounts.push((contact.account, contact.address.domain().clone()));
        }
        let invited = accounts.iter().map(|(account, _)| *account).collect();
        self.change(group, Wish::Invite(accounts)).await?;
        Ok(invited)
    }

    /// Accepts an invitation. The group's chain is read and verified first, from its genesis or from the checkpoint
    /// that the inviter vouches for. [`crate::Event::GroupJoined`] tells when the joining stands in the own log.
    ///
    /// # Errors
    /// [`Error::Misuse`] without an invitation; [`Error::Violation`] if the group's chain is not valid;
    /// [`Error::Refused`] (withdrawn, hub unreachable, …); [`Error::Offline`].
    pub async fn accept_invitation(&self, group: GroupId) -> Result<(), Error> {
        self.group_command(|answer| GroupCommand::Accept(group, answer)).await
    }

    /// Declines an invitation. Nobody is told here and now; the invitation is forgotten.
    ///
    /// # Errors
    /// [`Error::Misuse`] without an invitation.
    pub async fn decline_invitation(&self, group: GroupId) -> Result<(), Error> {
        let held = self.store().group(group).await?;
        if held.is_none_or(|group| group.status != GroupStatus::Invited) {
            return Err(Error::Misuse("there is no invitation to this group".to_owned()));
        }
        self.group_command(|answer| GroupCommand::Decline(group, answer)).await
    }

    /// Writes a post. It is in the store when this returns, and sent when it can be; [`Post::state`] and events say
    /// how far it got.
    ///
    /// # Errors
    /// [`Error::Misuse`] if this account is no member or the text is longer than [`TEXT_BYTES_MAX`].
    pub async fn post(&self, group: GroupId, post: impl Into<NewPost>) -> Result<MessageId, Error> {
        let new = post.into();
        if new.text.len() > TEXT_BYTES_MAX {
            return Err(Error::Misuse(format!("a text has at most {TEXT_BYTES_MAX} bytes")));
        }
        let held = self.store().group(group).await?;
        let member = |status| matches!(status, GroupStatus::Member | GroupStatus::Joining);
        if !held.is_some_and(|group| member(group.status)) {
            return Err(Error::Misuse("this account is no member of the group".to_owned()));
        }
        let mut id = [0; 16];
        generator()?.fill_bytes(&mut id);
        let mut tx = self.store().begin().await?;
        let post = Post {
            local: messages::next_seq(&mut tx).await?,
            group,
            id: MessageId(id),
            place: None,
            sender: self.account(),
            device: self.device(),
            number: 0,
            text: new.text,
            reply_to: new.reply_to,
            mentions: new.mentions,
            sent_at_ms: now_ms(),
            state: PostState::Queued,
            reason: None,
        };
        posts::put_post(&mut tx, &post, None).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.wake().await;
        Ok(post.id)
    }

    /// Gives a member another rank. Owners may.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn set_rank(&self, group: GroupId, account: AccountId, rank: Rank) -> Result<(), Error> {
        self.change(group, Wish::Rank(account, rank)).await
    }

    /// Removes members, or withdraws invitations. Admins may, of those below them; owners of all others. What is
    /// posted after that they cannot read.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn remove_members(&self, group: GroupId, accounts: &[AccountId]) -> Result<(), Error> {
        self.change(group, Wish::Remove(accounts.to_vec())).await
    }

    /// Leaves a group. Its posts stay in the store.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn leave_group(&self, group: GroupId) -> Result<(), Error> {
        self.change(group, Wish::Leave).await
    }

    /// Sets name and description, for those who have the group's profile key.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn set_group_profile(
        &self,
        group: GroupId,
        name: impl Into<String>,
        description: impl Into<String>,
    ) -> Result<(), Error> {
        self.change(group, Wish::Profile(name.into(), description.into())).await
    }

    /// Sets which rank may do what. Owners may.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn set_group_policy(&self, group: GroupId, policy: Policy) -> Result<(), Error> {
        self.change(group, Wish::Policy(policy)).await
    }

    /// This device's home, by its domain and chain: what an owner's program needs to name it a keeper.
    ///
    /// # Errors
    /// [`Error::Offline`].
    pub async fn home(&self) -> Result<ServerRef, Error> {
        Ok(self.home_signer().await?.server().clone())
    }

    /// This device's home, with its chain and a key that it signs with: what an owner's program needs to make it the hub.
    ///
    /// # Errors
    /// [`Error::Offline`].
    pub async fn home_signer(&self) -> Result<HomeSigner, Error> {
        self.group_command(GroupCommand::Home).await
    }

    /// Sets who keeps the group's log, one link for each server that comes or goes. Owners may.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`]; some of the links may have been made then.
    pub async fn set_keepers(&self, group: GroupId, keepers: &[ServerRef]) -> Result<(), Error> {
        if keepers.is_empty() {
            return Err(Error::Misuse("a group has a keeper at least".to_owned()));
        }
        self.change(group, Wish::Keepers(keepers.to_vec())).await
    }

    /// Moves the ordering of the group's log to another server, while the present hub can be reached. Owners may.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn transfer_hub(&self, group: GroupId, hub: HomeSigner) -> Result<(), Error> {
        self.change(group, Wish::Transfer(hub)).await
    }

    /// Makes the own home the hub, where the present one is gone and no majority of the keepers can be had. Owners
    /// may. What no other domain had seen of the log is undone and comes again.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn succeed_hub(&self, group: GroupId) -> Result<(), Error> {
        self.change(group, Wish::Succeed).await
    }

    /// Says that everything in a group was read, as far as this device has it. Kept, and told when there is a
    /// connection.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn mark_group_read(&self, group: GroupId) -> Result<(), Error> {
        let mut tx = self.store().begin().await?;
        posts::read_all(&mut tx, group).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.wake().await;
        Ok(())
    }

    /// How far each member is, in numbers of the group's log.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn group_marks(&self, group: GroupId) -> Result<Vec<MemberMark>, Error> {
        self.group_command(|answer| GroupCommand::Marks(group, answer)).await
    }

    async fn change(&self, group: GroupId, wish: Wish) -> Result<(), Error> {
        self.group_command(|answer| GroupCommand::Change(group, Box::new(wish), answer)).await
    }

    async fn group_command<T>(
        &self,
        command: impl FnOnce(tokio::sync::oneshot::Sender<Result<T, Error>>) -> GroupCommand,
    ) -> Result<T, Error> {
        self.command(|answer| Command::Group(Box::new(command(answer)))).await
    }
}
