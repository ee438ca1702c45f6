//! What stands inside a ciphertext, believed only as far as nothing outside contradicts it (spec
//! 08-encryption, ENC-011 to ENC-013). Pure.

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::id::{AccountId, GroupId, MessageId};
use tidings_proto::pb;

use crate::crypto::{Plaintext, open_plaintext, verify_commitment};
use crate::store::groups::posts::Place;

/// A message as its sender wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Letter {
    pub(crate) id: MessageId,
    pub(crate) sender: AccountId,
    /// The account it was written to.
    pub(crate) conversation: AccountId,
    pub(crate) class: pb::Class,
    pub(crate) own_number: u64,
    pub(crate) lifetime_secs: u32,
    pub(crate) sent_at_ms: u64,
    pub(crate) sender_head: Bytes,
    pub(crate) recipient_head: Bytes,
    pub(crate) reply_to: Option<MessageId>,
    pub(crate) content: pb::Content,
}

/// Why a decrypted message is not acted on; it counts as undecryptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("the plaintext is not framed as it has to be")]
    Framing,
    #[error("the header or the content cannot be read")]
    Unreadable,
    #[error("{0} inside and outside differ")]
    Contradiction(&'static str),
    #[error("the commitment does not fit")]
    Commitment,
}

/// Reads a decrypted plaintext against the envelope it came in.
pub(crate) fn read(delivery: &pb::Delivery, plaintext: &[u8]) -> Result<Letter, Mismatch> {
    let opened: Plaintext<'_> = open_plaintext(plaintext).map_err(|_| Mismatch::Framing)?;
    let header = pb::PlaintextHeader::decode(opened.header).map_err(|_| Mismatch::Unreadable)?;
    let content = pb::Content::decode(opened.content).map_err(|_| Mismatch::Unreadable)?;
    let lane = delivery.lane.clone().unwrap_or_default();
    for (what, inside, outside) in [
        ("the sender's account", &header.sender_account, &lane.sender),
        ("the sender's device", &header.sender_device, &delivery.sender_device),
        ("the conversation", &header.conversation, &lane.recipient),
    ] {
        if inside != outside {
            return Err(Mismatch::Contradiction(what));
        }
    }
    if header.class != delivery.class {
        return Err(Mismatch::Contradiction("the class"));
    }
    let key: [u8; 32] = header.franking_key.as_ref().try_into().map_err(|_| Mismatch::Unreadable)?;
    if !verify_commitment(&key, opened, &delivery.commitment) {
        return Err(Mismatch::Commitment);
    }
    let account = |bytes: &Bytes| AccountId::try_from(bytes).map_err(|_| Mismatch::Unreadable);
    Ok(Letter {
        id: MessageId::try_from(&header.message_id).map_err(|_| Mismatch::Unreadable)?,
        sender: account(&header.sender_account)?,
        conversation: account(&header.conversation)?,
        class: header.class(),
        own_number: header.number,
        lifetime_secs: header.lifetime_secs,
        sent_at_ms: header.sent_at_ms,
        sender_head: header.sender_head,
        recipient_head: header.recipient_head,
        reply_to: MessageId::optional(&content.reply_to).map_err(|_| Mismatch::Unreadable)?,
        content,
    })
}

/// A post as its sender wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PostLetter {
    pub(crate) id: MessageId,
    pub(crate) sent_at_ms: u64,
    /// The last place of the log that the sender had.
    pub(crate) seen: Option<pb::GroupPosition>,
    pub(crate) reply_to: Option<Place>,
    pub(crate) mentions: Vec<AccountId>,
    pub(crate) content: pb::Content,
}

/// Reads a decrypted post against the entry it stands in.
pub(crate) fn read_post(
    group: &GroupId,
    post: &pb::GroupPost,
    plaintext: &[u8],
) -> Result<PostLetter, Mismatch> {
    let opened: Plaintext<'_> = open_plaintext(plaintext).map_err(|_| Mismatch::Framing)?;
    let header = pb::PlaintextHeader::decode(opened.header).map_err(|_| Mismatch::Unreadable)?;
    let content = pb::Content::decode(opened.content).map_err(|_| Mismatch::Unreadable)?;
    for (what, inside, outside) in [
        ("the sender's account", header.sender_account.as_ref(), post.sender.as_ref()),
        ("the sender's device", header.sender_device.as_ref(), post.sender_device.as_ref()),
        ("the group", header.conversation.as_ref(), group.as_ref()),
        ("the group's head", header.recipient_head.as_ref(), post.chain_head.as_ref()),
    ] {
        if inside != outside {
            return Err(Mismatch::Contradiction(what));
        }
    }
    if header.number != post.number {
        return Err(Mismatch::Contradiction("the number"));
    }
    if header.class() != pb::Class::Content {
        return Err(Mismatch::Contradiction("the class"));
    }
    let key: [u8; 32] = header.franking_key.as_ref().try_into().map_err(|_| Mismatch::Unreadable)?;
    if !verify_commitment(&key, opened, &post.commitment) {
        return Err(Mismatch::Commitment);
    }
    let mentions: Result<Vec<_>, _> = content.mentions.iter().map(AccountId::try_from).collect();
    Ok(PostLetter {
        id: MessageId::try_from(&header.message_id).map_err(|_| Mismatch::Unreadable)?,
        sent_at_ms: header.sent_at_ms,
        seen: header.seen,
        reply_to: content.reply_to_place.map(|place| Place { term: place.term, seq: place.seq }),
        mentions: mentions.map_err(|_| Mismatch::Unreadable)?,
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{commitment, seal_plaintext};

    fn letter() -> (pb::Delivery, pb::PlaintextHeader, pb::Content) {
        let header = pb::PlaintextHeader {
            message_id: vec![1; 16].into(),
            sender_account: vec![2; 32].into(),
            sender_device: vec![3; 32].into(),
            conversation: vec![4; 32].into(),
            class: pb::Class::Content.into(),
            number: 7,
            franking_key: vec![5; 32].into(),
            ..Default::default()
        };
        let text = pb::Text { text: "hello".to_owned() };
        let content = pb::Content { body: Some(pb::content::Body::Text(text)), ..Default::default() };
        let lane = pb::LaneId {
            sender: header.sender_account.clone(),
            recipient: header.conversation.clone(),
            ..Default::default()
        };
        let committed = commitment(&[5; 32], &header.encode_to_vec(), &content.encode_to_vec());
        let delivery = pb::Delivery {
            lane: Some(lane),
            class: header.class,
            sender_device: header.sender_device.clone(),
            commitment: committed.to_vec().into(),
            ..Default::default()
        };
        (delivery, header, content)
    }

    fn sealed(header: &pb::PlaintextHeader, content: &pb::Content) -> Vec<u8> {
        seal_plaintext(&header.encode_to_vec(), &content.encode_to_vec()).expect("short")
    }

    #[test]
    fn what_agrees_is_read() {
        let (delivery, header, content) = letter();
        let read = read(&delivery, &sealed(&header, &content)).expect("it agrees");
        assert_eq!((read.own_number, read.id), (7, MessageId([1; 16])));
    }

    #[test]
    fn every_contradiction_is_refused() {
        let (good, header, content) = letter();
        let plaintext = sealed(&header, &content);
        let mut moved = good.clone();
        moved.lane.as_mut().expect("a lane").recipient = vec![9; 32].into();
        assert_eq!(read(&moved, &plaintext), Err(Mismatch::Contradiction("the conversation")));
        let other = pb::Delivery { sender_device: vec![9; 32].into(), ..good.clone() };
        assert_eq!(read(&other, &plaintext), Err(Mismatch::Contradiction("the sender's device")));
        let service = pb::Delivery { class: pb::Class::Service.into(), ..good.clone() };
        assert_eq!(read(&service, &plaintext), Err(Mismatch::Contradiction("the class")));
        let committed = pb::Delivery { commitment: vec![0; 32].into(), ..good.clone() };
        assert_eq!(read(&committed, &plaintext), Err(Mismatch::Commitment));
        assert_eq!(read(&good, &plaintext[1..]), Err(Mismatch::Framing));
    }

    #[test]
    fn a_post_is_read_where_it_belongs_and_nowhere_else() {
        let group = GroupId([8; 32]);
        let (_, header, content) = letter();
        let header = pb::PlaintextHeader {
            conversation: group.to_bytes(),
            recipient_head: vec![6; 32].into(),
            ..header
        };
        let committed = commitment(&[5; 32], &header.encode_to_vec(), &content.encode_to_vec());
        let good = pb::GroupPost {
            sender: header.sender_account.clone(),
            sender_device: header.sender_device.clone(),
            number: 7,
            chain_head: vec![6; 32].into(),
            commitment: committed.to_vec().into(),
            ..Default::default()
        };
        let plaintext = sealed(&header, &content);
        assert_eq!(read_post(&group, &good, &plaintext).expect("it agrees").id, MessageId([1; 16]));
        let refused = |post: pb::GroupPost| read_post(&group, &post, &plaintext).expect_err("it differs");
        let other = || Bytes::from(vec![9; 32]);
        assert_eq!(
            read_post(&GroupId([9; 32]), &good, &plaintext),
            Err(Mismatch::Contradiction("the group"))
        );
        assert_eq!(
            refused(pb::GroupPost { number: 8, ..good.clone() }),
            Mismatch::Contradiction("the number")
        );
        assert_eq!(
            refused(pb::GroupPost { chain_head: other(), ..good.clone() }),
            Mismatch::Contradiction("the group's head")
        );
        assert_eq!(
            refused(pb::GroupPost { sender: other(), ..good.clone() }),
            Mismatch::Contradiction("the sender's account")
        );
        assert_eq!(refused(pb::GroupPost { commitment: other(), ..good }), Mismatch::Commitment);
    }
}
