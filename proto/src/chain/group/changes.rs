//! What each link of a device changes, and the rules of its type.

use std::sync::Arc;

use super::rules::{GoesOn, Judged};
use super::state::checked_keepers;
use super::{ADD_MEMBERS, FEATURES_MAX, GroupLinkError, GroupState, HUB_SUCCESSION, HUB_TRANSFER, Member};
use super::{PROFILE_BYTES_MAX, Policy, REMOVE_MEMBERS, REQUIRE_FEATURE, Rank, SET_KEEPERS, SET_POLICY};
use super::{SET_PROFILE, SET_ROLE, ServerRef};
use crate::id::AccountId;
use crate::name::Domain;
use crate::pb;

impl GroupState {
    /// What a device's link changes. The types that a server signs as well change nothing here.
    pub(super) fn change(
        &mut self,
        body: &pb::GroupLinkBody,
        judged: &Judged,
        goes_on: Option<GoesOn>,
    ) -> Result<(), GroupLinkError> {
        let account = &judged.author.account;
        let rank = self.member(account).map_or(Rank::Member, |member| member.rank);
        let least = match body.r#type {
            ADD_MEMBERS => self.policy.adds,
            REMOVE_MEMBERS => Rank::Admin,
            SET_PROFILE => self.policy.edits,
            SET_ROLE | SET_POLICY | SET_KEEPERS | REQUIRE_FEATURE | HUB_TRANSFER | HUB_SUCCESSION => {
                Rank::Owner
            }
            _ => Rank::Member,
        };
        if rank < least {
            return Err(GroupLinkError::RankTooLow);
        }
        if let Some(add) = &body.add_members {
            self.add(add, account)
        } else if let Some(accept) = &body.accept {
            self.accept(accept, judged)
        } else if body.leave.is_some() {
            self.leave(account);
            Ok(())
        } else if let Some(remove) = &body.remove_members {
            self.remove(remove, account, rank)
        } else if let Some(role) = &body.set_role {
            self.set_role(role)
        } else if let Some(advance) = &body.advance {
            self.advance(advance, judged, goes_on)
        } else {
            self.set(body)
        }
    }

    fn set(&mut self, body: &pb::GroupLinkBody) -> Result<(), GroupLinkError> {
        if let Some(policy) = &body.set_policy {
            self.policy = Policy::parse(policy)?;
        }
        if let Some(set) = &body.set_profile {
            self.profile = checked_profile(&set.profile)?;
        }
        if let Some(set) = &body.set_keepers {
            self.set_keepers(set)?;
        }
        if let Some(require) = &body.require_feature {
            let mut features = self.features.to_vec();
            let place = features.binary_search(&require.feature).err();
            let place = place.filter(|_| features.len() < FEATURES_MAX);
            features.insert(place.ok_or(GroupLinkError::value("feature"))?, require.feature);
            self.features = features.into();
        }
        Ok(())
    }

    fn add(&mut self, add: &pb::AddMembers, by: &AccountId) -> Result<(), GroupLinkError> {
        let invitees = add.members.iter().map(|invitee| {
            let domain = Domain::parse(&invitee.domain)?;
            Ok((AccountId::try_from(&invitee.account)?, domain))
        });
        let invitees = invitees.collect::<Result<Vec<_>, GroupLinkError>>()?;
        if !ascending(invitees.iter().map(|(account, _)| account)) {
            return Err(GroupLinkError::value("members"));
        }
        if let Some((account, _)) = invitees.iter().find(|(account, _)| self.members.contains_key(account)) {
            return Err(GroupLinkError::Member(*account));
        }
        let total = self.members.len().saturating_add(invitees.len());
        if u32::try_from(total).map_or(true, |total| total > self.policy.members_max) {
            return Err(GroupLinkError::Full);
        }
        let since = self.number;
        let invited = invitees.into_iter().map(|(account, domain)| {
            let (rank, added_by) = (Rank::Member, Some(*by));
            (
                account,
                Arc::new(Member { domain, rank, invited: true, since, head: None, number: 0, added_by }),
            )
        });
        Arc::make_mut(&mut self.members).extend(invited);
        Ok(())
    }

    fn accept(&mut self, accept: &pb::AcceptMembership, judged: &Judged) -> Result<(), GroupLinkError> {
        let domain = judged.domain(&accept.domain)?;
        self.edit(&judged.author.account, |member| {
            member.domain = domain;
            member.invited = false;
            member.head = Some(judged.author.head);
            member.number = judged.author.number;
        });
        Ok(())
    }

    fn leave(&mut self, account: &AccountId) {
        let gone = Arc::make_mut(&mut self.members).remove(account);
        self.settle(gone.is_some_and(|member| !member.invited));
    }

    fn remove(
        &mut self,
        remove: &pb::RemoveMembers,
        by: &AccountId,
        rank: Rank,
    ) -> Result<(), GroupLinkError> {
        let accounts = remove.accounts.iter().map(AccountId::try_from).collect::<Result<Vec<_>, _>>()?;
        if !ascending(accounts.iter()) || accounts.contains(by) {
            return Err(GroupLinkError::value("accounts"));
        }
        let members = Arc::make_mut(&mut self.members);
        let mut rotates = false;
        for account in &accounts {
            let gone = members.remove(account).ok_or(GroupLinkError::Absent(*account))?;
            if gone.rank >= rank && rank != Rank::Owner {
                return Err(GroupLinkError::RankTooLow);
            }
            rotates |= !gone.invited;
        }
        self.settle(rotates);
        Ok(())
    }

    /// After somebody left: sender keys rotate if it was a member, there is an owner, or the chain ends.
    fn settle(&mut self, rotates: bool) {
        if rotates {
            self.rotate();
        }
        let oldest = |rank| {
            let those = self.members().filter(|(_, member)| !member.invited && member.rank == rank);
            those.min_by_key(|(account, member)| (member.since, **account)).map(|(account, _)| *account)
        };
        if self.has_owner() {
            return;
        }
        match oldest(Rank::Admin).or_else(|| oldest(Rank::Member)) {
            Some(heir) => self.edit(&heir, |member| member.rank = Rank::Owner),
            None => self.closed = true,
        }
    }

    pub(super) const fn rotate(&mut self) {
        self.rotated = self.number;
        self.rotated_head = self.head;
    }

    fn set_role(&mut self, role: &pb::SetRole) -> Result<(), GroupLinkError> {
        let account = AccountId::try_from(&role.account)?;
        let rank = Rank::parse(role.rank)?;
        self.full_member(&account).ok_or(GroupLinkError::Absent(account))?;
        self.edit(&account, |member| member.rank = rank);
        if self.has_owner() { Ok(()) } else { Err(GroupLinkError::NoOwner) }
    }

    fn advance(
        &mut self,
        advance: &pb::Advance,
        judged: &Judged,
        goes_on: Option<GoesOn>,
    ) -> Result<(), GroupLinkError> {
        let domain = judged.domain(&advance.domain)?;
        let goes_on = goes_on.ok_or(GroupLinkError::Account("head"))?;
        if advance.device_removed != (goes_on == GoesOn::WithoutADevice) {
            return Err(GroupLinkError::Account("list of devices"));
        }
        let account = judged.author.account;
        if self.member(&account).is_some_and(|member| member.domain != domain) {
            self.edit(&account, |member| member.domain = domain);
        }
        Ok(())
    }

    /// One server more or fewer, so that two majorities that follow each other share a keeper.
    fn set_keepers(&mut self, set: &pb::SetKeepers) -> Result<(), GroupLinkError> {
        let keepers = set.keepers.iter().map(|keeper| ServerRef::parse(Some(keeper)));
        let keepers = checked_keepers(keepers.collect::<Result<_, _>>()?)?;
        let (shorter, longer) = if keepers.len() < self.keepers.len() {
            (&keepers, &self.keepers)
        } else {
            (&self.keepers, &keepers)
        };
        let other = longer.iter().find(|keeper| !shorter.contains(keeper));
        let other = other.ok_or(GroupLinkError::value("keepers"))?;
        if !longer.iter().filter(|keeper| *keeper != other).eq(shorter.iter()) {
            return Err(GroupLinkError::value("keepers"));
        }
        let added = keepers.len() > self.keepers.len();
        if added && !self.members().any(|(_, member)| !member.invited && member.domain == other.domain) {
            return Err(GroupLinkError::value("keepers"));
        }
        self.keepers = keepers;
        Ok(())
    }
}

impl Judged {
    /// The domain that the link states, if it is the one of the account's address.
    fn domain(&self, stated: &str) -> Result<Domain, GroupLinkError> {
        let domain = Domain::parse(stated)?;
        if *self.at.address().domain() == domain {
            Ok(domain)
        } else {
            Err(GroupLinkError::Account("domain"))
        }
    }
}

pub(super) fn checked_profile(profile: &bytes::Bytes) -> Result<bytes::Bytes, GroupLinkError> {
    if profile.len() > PROFILE_BYTES_MAX {
        Err(GroupLinkError::value("profile"))
    } else {
        Ok(profile.clone())
    }
}

/// At least one, each above the one before.
fn ascending<'a>(accounts: impl Iterator<Item = &'a AccountId>) -> bool {
    let mut last = None;
    for account in accounts {
        if last >= Some(account) {
            return false;
        }
        last = Some(account);
    }
    last.is_some()
}
