//! The rules: which link can follow a state, and what the state is then.

use std::sync::Arc;

use super::changes::checked_profile;
use super::evidence::{AccountAt, GroupEvidence, account};
use super::state::checked_keepers;
use super::{
    ACCEPT, ADD_MEMBERS, ADVANCE, Author, BULK_LINK_BYTES_MAX, CHECKPOINT, CHECKPOINT_LINKS, GENESIS,
};
use super::{
    GroupLinkError, GroupState, HUB_SUCCESSION, HUB_TRANSFER, LEAVE, Member, Policy, REMOVE_MEMBERS,
};
use super::{REQUIRE_FEATURE, Rank, SET_KEEPERS, SET_POLICY, SET_PROFILE, SET_ROLE, SMALL_LINK_BYTES_MAX};
use super::{ServerRef, shape};
use crate::canonical;
use crate::chain::{LinkError, check_signatures, link_id, signers};
use crate::frame::is_critical;
use crate::id::{AccountId, Hash, KeyId, LinkId};
use crate::name::Address;
use crate::pb;
use crate::sign::{PublicKey, Purpose};

/// A link whose form is good.
struct Opened {
    id: LinkId,
    body: pb::GroupLinkBody,
    signers: Vec<KeyId>,
}

/// Who makes a link, with what its account's chain says.
pub(super) struct Judged {
    pub(super) author: Author,
    pub(super) at: AccountAt,
    key: PublicKey,
}

/// How an account went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GoesOn {
    /// No device left its list.
    Whole,
    /// One did: whoever holds it can read, until sender keys rotate.
    WithoutADevice,
}

impl GroupState {
    /// Verifies a genesis.
    ///
    /// # Errors
    /// [`GroupLinkError`]: the first rule it breaks, or the chain that is missing.
    pub fn genesis(link: &pb::Link, evidence: &dyn GroupEvidence) -> Result<Self, GroupLinkError> {
        let Opened { id, body, signers } = open(link)?;
        if !body.chain.is_empty() || !body.previous.is_empty() || body.number != 0 || body.r#type != GENESIS {
            return Err(LinkError::NotGenesis.into());
        }
        let (Some(genesis), 1) = (&body.genesis, fields(&body)) else {
            return Err(LinkError::Field(GENESIS).into());
        };
        let author = Author::parse(body.author.as_ref().ok_or(GroupLinkError::Author)?)?;
        let Judged { at, key, .. } = judge(author, evidence)?;
        let address = Address::parse(&genesis.address)?;
        if *at.address() != address {
            return Err(GroupLinkError::Account("address"));
        }
        let hub = ServerRef::parse(genesis.hub.as_ref())?;
        if hub.domain != *address.domain() {
            return Err(GroupLinkError::value("hub"));
        }
        if genesis.salt.len() != 16 {
            return Err(GroupLinkError::value("salt"));
        }
        let creator = Member {
            domain: address.domain().clone(),
            rank: Rank::Owner,
            invited: false,
            since: 0,
            head: Some(author.head),
            number: author.number,
            added_by: None,
        };
        let state = Self {
            group: id.into(),
            head: id,
            number: 0,
            term: 1,
            keepers: checked_keepers(vec![hub.clone()])?,
            hub,
            policy: Policy::parse(genesis.policy.as_ref().ok_or(GroupLinkError::value("policy"))?)?,
            profile: checked_profile(&genesis.profile)?,
            members: Arc::new([(author.account, Arc::new(creator))].into()),
            rotated: 0,
            rotated_head: id,
            features: Arc::from([]),
            checkpoint: 0,
            closed: false,
        };
        check_signatures(Purpose::GROUP_LINK, link, &signers, &[key])?;
        Ok(state)
    }

    /// Verifies a whole chain, genesis first.
    ///
    /// # Errors
    /// [`GroupLinkError`] of the first bad link, with its place from 0.
    pub fn verify(links: &[pb::Link], evidence: &dyn GroupEvidence) -> Result<Self, (usize, GroupLinkError)> {
        let first = links.first().ok_or_else(|| (0, LinkError::NotGenesis.into()))?;
        let mut state = Self::genesis(first, evidence).map_err(|error| (0, error))?;
        for (at, link) in links.iter().enumerate().skip(1) {
            state = state.apply(link, evidence).map_err(|error| (at, error))?;
        }
        Ok(state)
    }

    /// The state after one more link.
    ///
    /// # Errors
    /// [`GroupLinkError`]: the first rule it breaks, or the chain that is missing.
    pub fn apply(&self, link: &pb::Link, evidence: &dyn GroupEvidence) -> Result<Self, GroupLinkError> {
        let Opened { id, body, signers } = open(link)?;
        let mut next = self.placed(id, &body)?;
        let mut keys = Vec::with_capacity(2);
        let by_server = match body.r#type {
            CHECKPOINT => true,
            HUB_SUCCESSION => body.hub_succession.as_ref().is_some_and(|said| !said.votes.is_empty()),
            _ => false,
        };
        match (&body.author, by_server) {
            (Some(author), false) => {
                let author = Author::parse(author)?;
                self.may_author(&author.account, body.r#type)?;
                let judged = judge(author, evidence)?;
                self.not_older(&judged)?;
                keys.push(judged.key);
                let goes_on = self.going_on(&judged);
                next.note(&judged.author);
                if is_critical(body.r#type.into()) {
                    next.change(&body, &judged, goes_on)?;
                }
                if goes_on == Some(GoesOn::WithoutADevice) {
                    next.rotate();
                }
            }
            (None, true) => {}
            _ => return Err(GroupLinkError::Author),
        }
        keys.extend(next.change_by_server(self, &body, evidence)?);
        check_signatures(Purpose::GROUP_LINK, link, &signers, &keys)?;
        Ok(next)
    }

    /// The state with the next head, before the link changes anything.
    fn placed(&self, id: LinkId, body: &pb::GroupLinkBody) -> Result<Self, GroupLinkError> {
        if body.chain.as_ref() != self.group.as_ref() {
            return Err(LinkError::OtherChain.into());
        }
        let number = self.number.checked_add(1).ok_or(LinkError::Full)?;
        if body.number != number {
            return Err(LinkError::Number { expected: number, got: body.number }.into());
        }
        let got = LinkId::try_from(&body.previous)?;
        if got != self.head {
            return Err(LinkError::Previous { got }.into());
        }
        let kind = body.r#type;
        let critical = is_critical(kind.into());
        if critical && kind > CHECKPOINT {
            return Err(LinkError::UnknownCritical(kind).into());
        }
        if self.closed {
            return Err(LinkError::Closed.into());
        }
        let always = matches!(kind, CHECKPOINT | HUB_TRANSFER | HUB_SUCCESSION);
        if self.since_checkpoint() >= CHECKPOINT_LINKS && !always {
            return Err(GroupLinkError::CheckpointDue);
        }
        if critical && (fields(body) != 1 || !carries_its_own(body)) {
            return Err(LinkError::Field(kind).into());
        }
        Ok(Self { head: id, number, ..self.clone() })
    }

    fn may_author(&self, account: &AccountId, kind: u32) -> Result<(), GroupLinkError> {
        let member = self.member(account).ok_or(GroupLinkError::NotMember(*account))?;
        match (kind, member.invited) {
            (ACCEPT | LEAVE, true) => Ok(()),
            (kind, false) if kind != ACCEPT => Ok(()),
            _ => Err(GroupLinkError::NotMember(*account)),
        }
    }

    fn not_older(&self, judged: &Judged) -> Result<(), GroupLinkError> {
        let held = self.member(&judged.author.account).and_then(|member| Some((member.head?, member.number)));
        match held {
            Some((head, number)) if !judged.at.extends(&head, number) => Err(GroupLinkError::StaleAccount),
            _ => Ok(()),
        }
    }

    /// How the author's account went on since the head that this chain names; `None` if it did not.
    fn going_on(&self, judged: &Judged) -> Option<GoesOn> {
        let member = self.full_member(&judged.author.account)?;
        if member.head == Some(judged.author.head) {
            None
        } else if judged.at.last_removal().is_some_and(|number| number > member.number) {
            Some(GoesOn::WithoutADevice)
        } else {
            Some(GoesOn::Whole)
        }
    }

    /// Notes the account head that a link names. Members whose head stays are not copied.
    fn note(&mut self, author: &Author) {
        if self.full_member(&author.account).is_some_and(|member| member.head != Some(author.head)) {
            self.edit(&author.account, |member| {
                member.head = Some(author.head);
                member.number = author.number;
            });
        }
    }

    pub(super) fn edit(&mut self, account: &AccountId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = Arc::make_mut(&mut self.members).get_mut(account) {
            change(Arc::make_mut(member));
        }
    }
}

/// Looks the author up in its account's chain.
fn judge(author: Author, evidence: &dyn GroupEvidence) -> Result<Judged, GroupLinkError> {
    let at = account(evidence, author.account, author.head)?;
    let expected = at.number();
    if author.number != expected {
        return Err(GroupLinkError::AccountNumber { expected, got: author.number });
    }
    let key = at.device_key(&author.device).ok_or(GroupLinkError::NotListed)?;
    Ok(Judged { author, at, key })
}

/// Checks size and form, and parses.
fn open(link: &pb::Link) -> Result<Opened, GroupLinkError> {
    let length = link.body.len();
    if length > BULK_LINK_BYTES_MAX {
        return Err(LinkError::TooLarge(length).into());
    }
    canonical::scan(&link.body, &shape::BODY)?;
    let body = <pb::GroupLinkBody as prost::Message>::decode(link.body.clone())?;
    if length > SMALL_LINK_BYTES_MAX && !matches!(body.r#type, ADD_MEMBERS | REMOVE_MEMBERS) {
        return Err(LinkError::TooLarge(length).into());
    }
    Hash::optional(&body.chain)?;
    Hash::optional(&body.previous)?;
    let signers = signers(&body.signers)?;
    Ok(Opened { id: link_id(Purpose::GROUP_LINK, &link.body), body, signers })
}

/// Whether the body has the field of its type.
const fn carries_its_own(body: &pb::GroupLinkBody) -> bool {
    match body.r#type {
        ADD_MEMBERS => body.add_members.is_some(),
        ACCEPT => body.accept.is_some(),
        LEAVE => body.leave.is_some(),
        REMOVE_MEMBERS => body.remove_members.is_some(),
        SET_ROLE => body.set_role.is_some(),
        SET_POLICY => body.set_policy.is_some(),
        SET_PROFILE => body.set_profile.is_some(),
        SET_KEEPERS => body.set_keepers.is_some(),
        ADVANCE => body.advance.is_some(),
        REQUIRE_FEATURE => body.require_feature.is_some(),
        HUB_TRANSFER => body.hub_transfer.is_some(),
        HUB_SUCCESSION => body.hub_succession.is_some(),
        CHECKPOINT => body.checkpoint.is_some(),
        _ => false,
    }
}

fn fields(body: &pb::GroupLinkBody) -> usize {
    [
        body.genesis.is_some(),
        body.add_members.is_some(),
        body.accept.is_some(),
        body.leave.is_some(),
        body.remove_members.is_some(),
        body.set_role.is_some(),
        body.set_policy.is_some(),
        body.set_profile.is_some(),
        body.set_keepers.is_some(),
        body.advance.is_some(),
        body.require_feature.is_some(),
        body.hub_transfer.is_some(),
        body.hub_succession.is_some(),
        body.checkpoint.is_some(),
    ]
    .into_iter()
    .filter(|there| *there)
    .count()
}
