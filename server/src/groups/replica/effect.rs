//! What a replica asks of its shell, and what comes back (chapter 07).
//!
//! Effects come in two kinds. [`Write`]s of one call belong into one transaction; only when it is
//! committed may the call's answer and the other effects leave. After a crash nothing is owed: whatever
//! has to be sent again follows from what is stored.

use bytes::Bytes;
use tidings_proto::error::Refusal;
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Domain;
use tidings_proto::pb;

/// A row of the log as the shell stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number.
    pub seq: u64,
    /// What the replica needs of it after a start: opaque to the shell.
    pub slot: Bytes,
    /// An encoded `GroupRecord`: the bytes that readers get.
    pub record: Bytes,
}

/// A change to what is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Forget all rows and parts of the group; what follows in the same transaction stays.
    Reset,
    /// Set a part.
    Put {
        /// Its key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Remove a part.
    Delete {
        /// Its key.
        key: Bytes,
    },
    /// Add the next row of the log.
    Append(Row),
    /// Replace the slot of a row.
    Slot {
        /// Which row.
        seq: u64,
        /// The slot.
        slot: Bytes,
    },
    /// Remove the rows above this number: their term is void. Cursors of devices go back to it.
    Truncate {
        /// The last number that stays.
        after: u64,
    },
    /// An entry for a device's mailbox.
    Notice {
        /// Whose device.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// What it is told.
        notice: pb::GroupNotice,
    },
}

/// A request to another home.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Answer: [`Reply::Taken`].
    Batch(pb::GroupBatch),
    /// Answer: [`Reply::Placed`].
    Offer(pb::GroupOffer),
    /// Answer: [`Reply::Page`].
    Fetch(pb::GroupFetch),
    /// Answer: [`Reply::Done`].
    Marks(pb::GroupMarks),
    /// Answer: [`Reply::State`].
    Ask(pb::KeeperAsk),
    /// Answer: [`Reply::Voted`].
    Propose(pb::KeeperPropose),
}

/// What came of a request: exactly one for each, [`Reply::Unreachable`] at the latest.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Of a batch.
    Taken(pb::GroupTaken),
    /// Of an offer.
    Placed(pb::GroupPlaced),
    /// Of a fetch.
    Page(pb::GroupPage),
    /// Of a question between keepers.
    State(pb::KeeperState),
    /// Of a proposal.
    Voted(pb::KeeperVoted),
    /// Of marks.
    Done,
    /// The other home refused.
    Failed(Refusal),
    /// No answer: it may or may not have taken the request.
    Unreachable,
}

/// What a call asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// In this call's transaction.
    Write(Write),
    /// Send a request; its answer goes to [`super::Replica::answered`].
    Send {
        /// Names the answer.
        ticket: u64,
        /// The home.
        to: Domain,
        /// The request.
        request: Request,
    },
    /// Read the next rows after this number, as many as a batch takes, and hand them to
    /// [`super::Replica::rows`].
    Read {
        /// Names the answer.
        ticket: u64,
        /// The number before the first row.
        after: u64,
    },
    /// Readers here have something new: entries, a later `stable`, marks, or a truncated end.
    Wake,
    /// The log between is not to be had any more: fetch the state and links from this home, verify them, and
    /// call [`super::Replica::resync`].
    Resync {
        /// Whom to ask.
        from: Domain,
    },
    /// No member is here any more and this home is no keeper.
    Gone,
    /// Two signed heads of one place: proof against their hub, for the devices.
    Fork {
        /// Ours.
        ours: pb::SignedGroupHead,
        /// The other.
        theirs: pb::SignedGroupHead,
    },
}
