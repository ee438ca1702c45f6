//! Groups as this device verified them: the chain's state, the place in the log, what the hub signed (spec 07-groups).

pub(crate) mod keys;
pub mod posts;
mod rows;

pub(crate) use rows::*;

use tidings_proto::chain::GroupState;
use tidings_proto::chain::group::{Policy, Rank};
use tidings_proto::id::{AccountId, GroupId};
use tidings_proto::name::{Address, Domain};
use tidings_proto::pb;

use super::Store;
use crate::error::StoreError;

/// What this account is to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupStatus {
    /// It is making it; its home has not said yet that it has it.
    Creating = 0,
    /// Invited, and has not decided.
    Invited = 1,
    /// It accepted; the log has not shown that yet.
    Joining = 2,
    /// A member.
    Member = 3,
    /// It left, declined or was removed.
    Gone = 4,
}

impl GroupStatus {
    fn from_column(value: i64) -> Result<Self, StoreError> {
        Ok(match value {
            0 => Self::Creating,
            1 => Self::Invited,
            2 => Self::Joining,
            3 => Self::Member,
            4 => Self::Gone,
            _ => return Err(broken("status")),
        })
    }
}

/// A group as a list of them shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name, as the sealed profile says.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What this account is to it.
    pub status: GroupStatus,
    /// This account's rank; none if it is no member.
    pub rank: Option<Rank>,
    /// Accounts that are in it.
    pub members: u32,
    /// Accounts that were added and have not accepted.
    pub invited: u32,
    /// The term of its hub.
    pub term: u64,
    /// The domain that orders its log; none before its chain was read.
    pub hub: Option<Domain>,
    /// The domains that keep its log durably.
    pub keepers: Vec<Domain>,
    /// Which rank may do what.
    pub policy: Policy,
    /// Entries of its log that this device has read.
    pub place: u64,
    /// Entries that a majority of the keepers holds: they stay where they are.
    pub stable: u64,
    /// Entries that every member has on a device.
    pub all_delivered: u64,
    /// Entries that every member has read.
    pub all_read: u64,
    /// Posts of others that nobody of this account has read.
    pub unread: u64,
    /// Its hub was seen to sign two histories.
    pub forked: bool,
    /// Why its log is not followed any more, for people.
    pub damaged: Option<String>,
    /// Since when its hub cannot be reached while posts wait, Unix milliseconds.
    pub waiting_since_ms: Option<u64>,
}

/// An account in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// The account.
    pub account: AccountId,
    /// Its address, if its chain is known here.
    pub address: Option<Address>,
    /// Where it lives, as the group's chain says.
    pub domain: Domain,
    /// Its rank.
    pub rank: Rank,
    /// Added, and has not accepted.
    pub invited: bool,
    /// Who added it; none for who made the group.
    pub added_by: Option<AccountId>,
}

/// An invitation that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// To which group.
    pub group: GroupId,
    /// By whom. Accepting takes this account's word for which group that is.
    pub inviter: AccountId,
    /// What they call it.
    pub name: String,
    /// The domain that orders its log.
    pub hub: Domain,
}

fn broken(column: &'static str) -> StoreError {
    StoreError::Inconsistent { table: "chat", column }
}

impl Store {
    /// The groups of this account, also those it left or is invited to.
    ///
    /// # Errors
    /// If SQLite fails or a row is broken.
    pub async fn groups(&self) -> Result<Vec<Group>, StoreError> {
        let mut groups = Vec::new();
        for chat in self.chats().await? {
            groups.push(self.view(chat).await?);
        }
        Ok(groups)
    }

    /// One group.
    ///
    /// # Errors
    /// If SQLite fails or the row is broken.
    pub async fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError> {
        match self.chat(group).await? {
            Some(chat) => self.view(chat).await.map(Some),
            None => Ok(None),
        }
    }

    async fn view(&self, chat: Chat) -> Result<Group, StoreError> {
        let me = self.value("account").await?.unwrap_or_default();
        let me = AccountId::try_from(&me).map_err(|_| broken("account"))?;
        let state = chat.state.as_ref();
        let count = |invited| {
            let count = state.map_or(0, |s| s.members().filter(|(_, m)| m.invited == invited).count());
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let invited_to = chat.invitation.as_ref().and_then(|invitation| invitation.hub.as_ref());
        let domain = |hub: &pb::ServerRef| Domain::parse(&hub.domain).ok();
        Ok(Group {
            id: chat.id,
            status: chat.status,
            rank: state.and_then(|state| state.full_member(&me)).map(|member| member.rank),
            members: count(false),
            invited: count(true),
            term: state.map_or(0, GroupState::term),
            hub: state.map_or_else(|| invited_to.and_then(domain), |state| Some(state.hub().domain.clone())),
            keepers: state
                .map(|state| state.keepers().iter().map(|keeper| keeper.domain.clone()).collect())
                .unwrap_or_default(),
            policy: state.map(|state| *state.policy()).unwrap_or_default(),
            place: chat.position.seq,
            stable: chat.stable,
            all_delivered: chat.all_delivered,
            all_read: chat.all_read,
            unread: self.unread_posts(chat.id).await?,
            forked: chat.fork.is_some(),
            damaged: chat.damaged,
            waiting_since_ms: chat.waiting_ms,
            name: chat.name,
            description: chat.description,
        })
    }

    /// The members of a group and those it invited, by account.
    ///
    /// # Errors
    /// If SQLite fails or a row is broken.
    pub async fn group_members(&self, group: GroupId) -> Result<Vec<GroupMember>, StoreError> {
        let Some(state) = self.chat(group).await?.and_then(|chat| chat.state) else { return Ok(Vec::new()) };
        let mut members = Vec::new();
        for (account, member) in state.members() {
            members.push(GroupMember {
                account: *account,
                address: self.contact(*account).await?.map(|contact| contact.address),
                domain: member.domain.clone(),
                rank: member.rank,
                invited: member.invited,
                added_by: member.added_by,
            });
        }
        Ok(members)
    }

    /// Invitations that wait for a decision.
    ///
    /// # Errors
    /// If SQLite fails or a row is broken.
    pub async fn invitations(&self) -> Result<Vec<Invitation>, StoreError> {
        let chats = self.chats().await?;
        Ok(chats.iter().filter(|chat| chat.status == GroupStatus::Invited).filter_map(invitation).collect())
    }
}

#[cfg(test)]
mod tests;
