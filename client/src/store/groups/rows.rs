//! Rows of groups, as the task works on them: written in the transaction that holds an entry's effect.

use prost::Message as _;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use tidings_proto::chain::GroupState;
use tidings_proto::group_log::GroupPosition;
use tidings_proto::id::{AccountId, DeviceId, GroupId, Hash, LinkId, ServerId};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::super::{Store, Tx, signed, unsigned};
use super::{GroupStatus, Invitation, broken};
use crate::error::StoreError;

/// A group's row, as the task works on it.
#[derive(Debug, Clone)]
pub(crate) struct Chat {
    pub(crate) id: GroupId,
    pub(crate) status: GroupStatus,
    pub(crate) state: Option<GroupState>,
    pub(crate) invitation: Option<pb::GroupInvitation>,
    pub(crate) inviter: Option<AccountId>,
    pub(crate) profile_key: [u8; 32],
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) position: GroupPosition,
    pub(crate) head: Option<pb::SignedGroupHead>,
    pub(crate) fork: Option<pb::SignedGroupHead>,
    pub(crate) stable: u64,
    pub(crate) all_delivered: u64,
    pub(crate) all_read: u64,
    pub(crate) damaged: Option<String>,
    pub(crate) waiting_ms: Option<u64>,
    pub(crate) awaits: Option<LinkId>,
}

impl Chat {
    /// A group that nothing is known of but its id and the key of its profile.
    pub(crate) fn new(id: GroupId, status: GroupStatus, profile_key: [u8; 32]) -> Self {
        Self {
            id,
            status,
            state: None,
            invitation: None,
            inviter: None,
            profile_key,
            name: String::new(),
            description: String::new(),
            position: GroupPosition::START,
            head: None,
            fork: None,
            stable: 0,
            all_delivered: 0,
            all_read: 0,
            damaged: None,
            waiting_ms: None,
            awaits: None,
        }
    }
}

fn chat(row: &SqliteRow) -> Result<Chat, StoreError> {
    let bytes = |column: &'static str| row.try_get::<Vec<u8>, _>(column);
    let optional = |column: &'static str| row.try_get::<Option<Vec<u8>>, _>(column);
    let head = |column| -> Result<Option<pb::SignedGroupHead>, StoreError> {
        optional(column)?
            .map(|head| pb::SignedGroupHead::decode(head.as_slice()).map_err(|_| broken(column)))
            .transpose()
    };
    let state = optional("state")?.map(|state| GroupState::from_trusted(&state)).transpose();
    let invitation = optional("invitation")?.map(|body| pb::GroupInvitation::decode(body.as_slice()));
    let inviter = optional("inviter")?.map(|id| AccountId::try_from(&id)).transpose();
    let awaits = optional("awaits")?.map(|id| LinkId::try_from(&id)).transpose();
    Ok(Chat {
        id: GroupId::try_from(&bytes("id")?).map_err(|_| broken("id"))?,
        status: GroupStatus::from_column(row.try_get("status")?)?,
        state: state.map_err(|_| broken("state"))?,
        invitation: invitation.transpose().map_err(|_| broken("invitation"))?,
        inviter: inviter.map_err(|_| broken("inviter"))?,
        profile_key: bytes("profile_key")?.try_into().map_err(|_| broken("profile_key"))?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        position: GroupPosition {
            term: unsigned(row.try_get("term")?),
            seq: unsigned(row.try_get("seq")?),
            hash: Hash::try_from(&bytes("hash")?).map_err(|_| broken("hash"))?,
        },
        head: head("head")?,
        fork: head("fork")?,
        stable: unsigned(row.try_get("stable")?),
        all_delivered: unsigned(row.try_get("all_delivered")?),
        all_read: unsigned(row.try_get("all_read")?),
        damaged: row.try_get("damaged")?,
        waiting_ms: row.try_get::<Option<i64>, _>("waiting_ms")?.map(unsigned),
        awaits: awaits.map_err(|_| broken("awaits"))?,
    })
}

impl Store {
    /// The groups' rows.
    pub(crate) async fn chats(&self) -> Result<Vec<Chat>, StoreError> {
        let rows = sqlx::query("SELECT * FROM chat ORDER BY rowid").fetch_all(&self.pool).await?;
        rows.iter().map(chat).collect()
    }

    /// One group's row.
    pub(crate) async fn chat(&self, group: GroupId) -> Result<Option<Chat>, StoreError> {
        let row = sqlx::query("SELECT * FROM chat WHERE id = ?1")
            .bind(group.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(chat).transpose()
    }

    /// The state of a group after the last link at or below a place, and the place it is of.
    pub(crate) async fn state_at(&self, group: GroupId, seq: u64) -> Result<Option<GroupState>, StoreError> {
        let row = sqlx::query(
            "SELECT state FROM chat_place WHERE chat = ?1 AND seq <= ?2 AND state IS NOT NULL ORDER BY seq DESC LIMIT 1",
        )
        .bind(group.to_vec())
        .bind(signed(seq))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let state = GroupState::from_trusted(&row.try_get::<Vec<u8>, _>(0)?);
        state.map(Some).map_err(|_| StoreError::Inconsistent { table: "chat_place", column: "state" })
    }

    /// A place that was read, if it is still remembered.
    pub(crate) async fn place(&self, group: GroupId, seq: u64) -> Result<Option<GroupPosition>, StoreError> {
        let row = sqlx::query("SELECT term, hash FROM chat_place WHERE chat = ?1 AND seq = ?2")
            .bind(group.to_vec())
            .bind(signed(seq))
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let broken = |_| StoreError::Inconsistent { table: "chat_place", column: "hash" };
        let hash = Hash::try_from(&row.try_get::<Vec<u8>, _>(1)?).map_err(broken)?;
        Ok(Some(GroupPosition { term: unsigned(row.try_get(0)?), seq, hash }))
    }

    /// Whether a link is one of a group's chain.
    pub(crate) async fn holds_link(&self, group: GroupId, id: &LinkId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM chat_link WHERE chat = ?1 AND id = ?2")
            .bind(group.to_vec())
            .bind(id.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// A link of a group's chain by its number, if it was read here.
    pub(crate) async fn group_link(
        &self,
        group: GroupId,
        number: u64,
    ) -> Result<Option<pb::Link>, StoreError> {
        let row = sqlx::query("SELECT body, signatures FROM chat_link WHERE chat = ?1 AND number = ?2")
            .bind(group.to_vec())
            .bind(signed(number))
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let signatures: Vec<u8> = row.try_get(1)?;
        let signatures = signatures.chunks(65).map(bytes::Bytes::copy_from_slice).collect();
        Ok(Some(pb::Link { body: row.try_get::<Vec<u8>, _>(0)?.into(), signatures }))
    }

    /// The links held of a server's chain, from its genesis.
    pub(crate) async fn server_links(&self, server: ServerId) -> Result<Vec<pb::Link>, StoreError> {
        let rows = sqlx::query("SELECT body, signatures FROM server_link WHERE server = ?1 ORDER BY number")
            .bind(server.to_vec())
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let signatures: Vec<u8> = row.try_get(1)?;
                let signatures = signatures.chunks(65).map(bytes::Bytes::copy_from_slice).collect();
                Ok(pb::Link { body: row.try_get::<Vec<u8>, _>(0)?.into(), signatures })
            })
            .collect()
    }
}

/// What an invited group's row says of its invitation.
pub(crate) fn invitation(chat: &Chat) -> Option<Invitation> {
    let hub = chat.invitation.as_ref()?.hub.as_ref()?;
    Some(Invitation {
        group: chat.id,
        inviter: chat.inviter?,
        name: chat.name.clone(),
        hub: Domain::parse(&hub.domain).ok()?,
    })
}

/// Remembers an invitation: by a member, or with `own` by another device of this account, which is a member already.
/// Gives the row if it is the first, or one after the account had gone.
pub(crate) async fn remember_invitation(
    tx: &mut Tx,
    (inviter, own): (AccountId, bool),
    invitation: &pb::GroupInvitation,
) -> Result<Option<Chat>, StoreError> {
    let key: Result<[u8; 32], _> = invitation.profile_key.as_ref().try_into();
    let (Ok(group), Ok(profile_key)) = (GroupId::try_from(&invitation.group), key) else { return Ok(None) };
    let row = sqlx::query("SELECT status FROM chat WHERE id = ?1")
        .bind(group.to_vec())
        .fetch_optional(&mut **tx)
        .await?;
    let status = row.map(|row| GroupStatus::from_column(row.try_get(0)?)).transpose()?;
    if status.is_some_and(|status| !matches!(status, GroupStatus::Invited | GroupStatus::Gone)) {
        return Ok(None);
    }
    let new = if own { GroupStatus::Joining } else { GroupStatus::Invited };
    let mut chat = Chat::new(group, new, profile_key);
    chat.invitation = Some(invitation.clone());
    chat.inviter = Some(inviter);
    chat.name.clone_from(&invitation.name);
    put_chat(tx, &chat).await?;
    Ok((status != Some(GroupStatus::Invited)).then_some(chat))
}

/// Writes a group's row; what is read and counted of it stays.
pub(crate) async fn put_chat(tx: &mut Tx, chat: &Chat) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO chat (id, status, state, invitation, inviter, profile_key, name, description, term, seq, hash, \
         head, fork, stable, all_delivered, all_read, damaged, waiting_ms, awaits) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19) \
         ON CONFLICT (id) DO UPDATE SET status = ?2, state = ?3, invitation = ?4, inviter = ?5, profile_key = ?6, \
         name = ?7, description = ?8, term = ?9, seq = ?10, hash = ?11, head = ?12, fork = ?13, stable = ?14, \
         all_delivered = ?15, all_read = ?16, damaged = ?17, waiting_ms = ?18, awaits = ?19",
    )
    .bind(chat.id.to_vec())
    .bind(chat.status as i64)
    .bind(chat.state.as_ref().map(|state| state.encode().to_vec()))
    .bind(chat.invitation.as_ref().map(prost::Message::encode_to_vec))
    .bind(chat.inviter.map(|id| id.to_vec()))
    .bind(chat.profile_key.to_vec())
    .bind(&chat.name)
    .bind(&chat.description)
    .bind(signed(chat.position.term))
    .bind(signed(chat.position.seq))
    .bind(chat.position.hash.to_vec())
    .bind(chat.head.as_ref().map(prost::Message::encode_to_vec))
    .bind(chat.fork.as_ref().map(prost::Message::encode_to_vec))
    .bind(signed(chat.stable))
    .bind(signed(chat.all_delivered))
    .bind(signed(chat.all_read))
    .bind(&chat.damaged)
    .bind(chat.waiting_ms.map(signed))
    .bind(chat.awaits.map(|id| id.to_vec()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Moves a group's place, without the rest of its row: what most entries do.
pub(crate) async fn move_chat(tx: &mut Tx, group: GroupId, at: &GroupPosition) -> Result<(), StoreError> {
    sqlx::query("UPDATE chat SET term = ?2, seq = ?3, hash = ?4 WHERE id = ?1")
        .bind(group.to_vec())
        .bind(signed(at.term))
        .bind(signed(at.seq))
        .bind(at.hash.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Remembers a place, with the state after it if a link stands there.
pub(crate) async fn put_place(
    tx: &mut Tx,
    group: GroupId,
    at: &GroupPosition,
    state: Option<&GroupState>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO chat_place (chat, seq, term, hash, state) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (chat, seq) DO UPDATE SET term = ?3, hash = ?4, state = ?5",
    )
    .bind(group.to_vec())
    .bind(signed(at.seq))
    .bind(signed(at.term))
    .bind(at.hash.to_vec())
    .bind(state.map(|state| state.encode().to_vec()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets what no term will go back to: places far below what is stable, and all states but the newest of those.
pub(crate) async fn prune_places(tx: &mut Tx, group: GroupId, stable: u64) -> Result<(), StoreError> {
    const KEPT: u64 = 4096;
    sqlx::query(
        "UPDATE chat_place SET state = NULL WHERE chat = ?1 AND seq < \
         (SELECT MAX(seq) FROM chat_place WHERE chat = ?1 AND seq <= ?2 AND state IS NOT NULL)",
    )
    .bind(group.to_vec())
    .bind(signed(stable))
    .execute(&mut **tx)
    .await?;
    sqlx::query("DELETE FROM chat_place WHERE chat = ?1 AND seq < ?2 AND state IS NULL")
        .bind(group.to_vec())
        .bind(signed(stable.saturating_sub(KEPT)))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Writes a verified link.
pub(crate) async fn put_link(
    tx: &mut Tx,
    state: &GroupState,
    seq: u64,
    link: &pb::Link,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO chat_link (chat, number, id, seq, body, signatures) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(state.group().to_vec())
    .bind(signed(state.number()))
    .bind(state.head().to_vec())
    .bind(signed(seq))
    .bind(link.body.to_vec())
    .bind(link.signatures.concat())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A new term goes on from `after`: what stood above is not in the log any more. Gives the bodies of the links
/// that are void with it.
pub(crate) async fn cut(tx: &mut Tx, group: GroupId, after: u64) -> Result<Vec<Vec<u8>>, StoreError> {
    let rows =
        sqlx::query("DELETE FROM chat_link WHERE chat = ?1 AND seq > ?2 RETURNING body").bind(group.to_vec());
    let rows = rows.bind(signed(after)).fetch_all(&mut **tx).await?;
    for statement in [
        "DELETE FROM chat_place WHERE chat = ?1 AND seq > ?2",
        "DELETE FROM undecrypted WHERE chat = ?1 AND seq > ?2",
        "UPDATE chat SET stable = MIN(stable, ?2), all_delivered = MIN(all_delivered, ?2), all_read = MIN(all_read, ?2), \
         read = MIN(read, ?2), told = MIN(told, ?2) WHERE id = ?1",
        // Numbers are counted anew from what comes.
        "UPDATE chat_number SET loose = 1, number = 0 WHERE chat = ?1",
        "UPDATE post SET term = NULL, seq = NULL, state = iif(state = 7, 7, iif(state = 5, 5, 1)) WHERE chat = ?1 AND seq > ?2",
    ] {
        sqlx::query(statement).bind(group.to_vec()).bind(signed(after)).execute(&mut **tx).await?;
    }
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Takes note of a device's number. False: it is not the next one.
pub(crate) async fn count(
    tx: &mut Tx,
    group: GroupId,
    (account, device): (AccountId, DeviceId),
    number: u64,
) -> Result<bool, StoreError> {
    let row =
        sqlx::query("SELECT number, loose FROM chat_number WHERE chat = ?1 AND account = ?3 AND device = ?2")
            .bind(group.to_vec())
            .bind(device.to_vec())
            .bind(account.to_vec())
            .fetch_optional(&mut **tx)
            .await?;
    let fits = match row {
        // Its earlier posts may stand before the place where this device began to read.
        None => true,
        Some(row) => {
            let last = unsigned(row.try_get(0)?);
            let loose = row.try_get::<i64, _>(1)? != 0;
            if loose { number > last } else { number == last.saturating_add(1) }
        }
    };
    if fits {
        sqlx::query(
            "INSERT OR REPLACE INTO chat_number (chat, account, device, number) VALUES (?1, ?4, ?2, ?3)",
        )
        .bind(group.to_vec())
        .bind(device.to_vec())
        .bind(signed(number))
        .bind(account.to_vec())
        .execute(&mut **tx)
        .await?;
    }
    Ok(fits)
}

/// Entries were passed over unread: the devices' numbers may jump once.
pub(crate) async fn loosen(tx: &mut Tx, group: GroupId) -> Result<(), StoreError> {
    sqlx::query("UPDATE chat_number SET loose = 1 WHERE chat = ?1")
        .bind(group.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The devices of an account that left a group number from 1 when it comes back.
pub(crate) async fn forget_numbers(
    tx: &mut Tx,
    group: GroupId,
    account: AccountId,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM chat_number WHERE chat = ?1 AND account = ?2")
        .bind(group.to_vec())
        .bind(account.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Writes a server's verified chain.
pub(crate) async fn put_server(tx: &mut Tx, server: ServerId, links: &[pb::Link]) -> Result<(), StoreError> {
    for (number, link) in (0_u64..).zip(links) {
        sqlx::query(
            "INSERT OR IGNORE INTO server_link (server, number, body, signatures) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(server.to_vec())
        .bind(signed(number))
        .bind(link.body.to_vec())
        .bind(link.signatures.concat())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
