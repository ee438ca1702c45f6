//! Entries of a group log.

use bytes::Bytes;
use prost::Message as _;

use super::GroupLogError;
use crate::entries;
use crate::frame::is_critical;
use crate::id::GroupId;
use crate::pb;

/// An entry of a group log.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupEntry {
    /// A message.
    Message(Box<pb::GroupMessage>, GroupId),
    /// A link of the group's chain.
    Link(Box<pb::GroupLink>, GroupId),
    /// A type that is not known here and may be skipped.
    Other {
        /// The type.
        kind: u64,
        /// What every entry begins with.
        head: pb::GroupEntryHead,
        /// The group.
        group: GroupId,
    },
}

impl GroupEntry {
    /// Reads an encoded `Entry`. A [`pb::GroupVoid`] is none: it stands in the place of entries.
    ///
    /// # Errors
    /// [`GroupLogError::Parse`], [`GroupLogError::Id`], [`GroupLogError::Empty`], [`GroupLogError::UnknownCritical`].
    pub fn parse(entry: &[u8]) -> Result<Self, GroupLogError> {
        let pb::Entry { r#type: kind, body } = pb::Entry::decode(entry)?;
        match kind {
            entries::GROUP_MESSAGE => {
                let message = pb::GroupMessage::decode(body)?;
                let group = GroupId::try_from(&message.group)?;
                message.post.as_ref().ok_or(GroupLogError::Empty(kind))?;
                Ok(Self::Message(Box::new(message), group))
            }
            entries::GROUP_LINK => {
                let link = pb::GroupLink::decode(body)?;
                let group = GroupId::try_from(&link.group)?;
                link.link.as_ref().ok_or(GroupLogError::Empty(kind))?;
                Ok(Self::Link(Box::new(link), group))
            }
            kind if is_critical(kind) => Err(GroupLogError::UnknownCritical(kind)),
            kind => {
                let head = pb::GroupEntryHead::decode(body)?;
                let group = GroupId::try_from(&head.group)?;
                Ok(Self::Other { kind, head, group })
            }
        }
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        match self {
            Self::Message(_, group) | Self::Link(_, group) | Self::Other { group, .. } => *group,
        }
    }

    /// The term.
    #[must_use]
    pub const fn term(&self) -> u64 {
        match self {
            Self::Message(message, _) => message.term,
            Self::Link(link, _) => link.term,
            Self::Other { head, .. } => head.term,
        }
    }

    /// The number.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        match self {
            Self::Message(message, _) => message.seq,
            Self::Link(link, _) => link.seq,
            Self::Other { head, .. } => head.seq,
        }
    }

    /// The post of a message.
    #[must_use]
    pub const fn post(&self) -> Option<&pb::GroupPost> {
        if let Self::Message(message, _) = self { message.post.as_ref() } else { None }
    }

    /// The link, not verified.
    #[must_use]
    pub const fn link(&self) -> Option<&pb::Link> {
        if let Self::Link(link, _) = self { link.link.as_ref() } else { None }
    }

    pub(super) fn succession(&self) -> Option<pb::HubSuccession> {
        pb::GroupLinkBody::decode(self.link()?.body.clone()).ok()?.hub_succession
    }
}

/// The entry of a post at its place, encoded.
#[must_use]
pub fn message_entry(group: &GroupId, term: u64, seq: u64, post: pb::GroupPost) -> Bytes {
    let message = pb::GroupMessage { group: group.to_bytes(), term, seq, post: Some(post) };
    entry(entries::GROUP_MESSAGE, message.encode_to_vec())
}

/// The entry of a link at its place, encoded.
#[must_use]
pub fn link_entry(group: &GroupId, term: u64, seq: u64, link: pb::Link) -> Bytes {
    let link = pb::GroupLink { group: group.to_bytes(), term, seq, link: Some(link) };
    entry(entries::GROUP_LINK, link.encode_to_vec())
}

fn entry(kind: u64, body: Vec<u8>) -> Bytes {
    pb::Entry { r#type: kind, body: body.into() }.encode_to_vec().into()
}
