//! What a client tells the program around it.

use tidings_proto::chain::group::Rank;
use tidings_proto::id::{AccountId, DeviceId, GroupId, MessageId};
use tidings_proto::name::{Address, Domain};

use crate::store::groups::Invitation;
use crate::store::groups::posts::{Place, Post, PostState};
use crate::store::messages::{Message, State};

/// Something that happened. The store already holds it when it is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The home accepted this device's proof.
    Connected,
    /// The connection is gone; another attempt follows after the time given.
    Disconnected {
        /// Why, for people.
        reason: String,
        /// Milliseconds until the next attempt; none if only the user can mend it.
        retry_in_ms: Option<u64>,
    },
    /// A message of somebody else's, or one that another own device sent.
    Message(Box<Message>),
    /// How far own messages got: all of the conversation up to a lane number.
    Progress {
        /// The other account of the conversation.
        conversation: AccountId,
        /// Highest lane number it is true of.
        upto: u64,
        /// What they reached.
        state: State,
    },
    /// The home took one message.
    Accepted {
        /// The message.
        id: MessageId,
        /// Its lane number.
        number: u64,
        /// Whether the recipient lives at the same home, so that nothing is left to forward.
        local: bool,
    },
    /// One message will not arrive.
    Failed {
        /// The message.
        id: MessageId,
        /// Why, for people.
        reason: String,
    },
    /// The other home cannot be reached; messages wait.
    Pending {
        /// The other account of the conversation.
        conversation: AccountId,
        /// Since when, Unix milliseconds of the home's clock.
        since_ms: u64,
        /// Why, for people.
        reason: String,
    },
    /// The devices of an account changed, as its verified chain shows.
    DevicesChanged {
        /// Whose.
        account: AccountId,
        /// Its address.
        address: Address,
        /// Devices that joined.
        added: Vec<DeviceId>,
        /// Devices that left.
        removed: Vec<DeviceId>,
    },
    /// Two histories of one account were seen. Nothing is encrypted to it until its owner ends the fork.
    Fork {
        /// Whose.
        account: AccountId,
    },
    /// A contact names a head that is in no chain of the account's, also after its home was asked: the contact was
    /// shown another device list, or says so. One contact's claim, no proof; everything goes on. The two compare
    /// their safety codes to find out (spec 08-encryption, ENC-024).
    HeadDisputed {
        /// Who named it.
        contact: AccountId,
        /// Whose list it is about: this account, or the contact's own.
        account: AccountId,
    },
    /// A message came that cannot be read; the sender's device was asked to send it again.
    Undecryptable {
        /// From whom.
        sender: AccountId,
        /// Its lane number.
        number: u64,
    },
    /// Lane numbers are missing: messages that the sender's home gave a number and that never came.
    Gap {
        /// The other account of the conversation.
        conversation: AccountId,
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
    /// A device's own numbers in a conversation jump although its home accounts for everything: messages were
    /// withheld on the way (spec 08-encryption, ENC-015).
    Withheld {
        /// The other account of the conversation.
        conversation: AccountId,
        /// Whose numbers jump.
        device: DeviceId,
        /// How many are missing.
        count: u64,
    },
    /// Another device of this account read the conversation.
    ReadElsewhere {
        /// The other account of the conversation.
        conversation: AccountId,
    },
    /// Messages with a lifetime are over and were deleted here.
    Disappeared {
        /// Which.
        ids: Vec<MessageId>,
    },
    /// An address that was known resolves to another account now: another person, until the user says otherwise
    /// (spec 05-accounts, ACC-002). Nothing written to the account known before goes there.
    AddressChanged {
        /// The address.
        address: Address,
        /// The account known before.
        before: AccountId,
        /// The account that the address points to now.
        now: AccountId,
    },
    /// The mailbox holds something that this version does not know; it is kept for one that does.
    Unsupported {
        /// The entry's type.
        kind: u64,
    },
    /// What the home held for this device was dropped unread, because it was too much or too old.
    MailboxLapsed,
    /// The home, or this device, has lost state: the mailbox is not the one this device has read. Only the
    /// home's operator can mend it (spec 03-logs, LOG-054).
    HomeLostState,
    /// The home began a new life after a loss; what it may have lost is being sent again.
    HomeRestored,
    /// This device's store is older than what was sent with it, or was copied: it sends and reads nothing any
    /// more. Link it as a new device (spec 06-messages, MSG-019).
    RolledBack,
    /// Somebody invites this account to a group.
    GroupInvited(Box<Invitation>),
    /// This account is a member of a group: it made it, or its joining stands in the log.
    GroupJoined {
        /// Which group.
        group: GroupId,
    },
    /// This account left a group, or was removed.
    GroupGone {
        /// Which group.
        group: GroupId,
    },
    /// A post of somebody else's, or one that another own device sent.
    Post(Box<Post>),
    /// The own home has a post durably.
    PostAccepted {
        /// In which group.
        group: GroupId,
        /// The post.
        id: MessageId,
    },
    /// The group's log has an own post.
    PostPlaced {
        /// In which group.
        group: GroupId,
        /// The post.
        id: MessageId,
        /// Where.
        place: Place,
    },
    /// A post will not arrive.
    PostFailed {
        /// In which group.
        group: GroupId,
        /// The post.
        id: MessageId,
        /// Why, for people.
        reason: String,
    },
    /// A post stands in the log whose key is not here; it is shown when the key comes.
    PostUnreadable {
        /// In which group.
        group: GroupId,
        /// Who wrote it.
        sender: AccountId,
        /// Its number in the log.
        seq: u64,
    },
    /// A post stands in the log that the rules forbid, or that contradicts itself: it is not shown.
    PostRefused {
        /// In which group.
        group: GroupId,
        /// Who it says wrote it.
        sender: AccountId,
        /// Its number in the log.
        seq: u64,
    },
    /// How far own posts of a group got: all up to a number of its log.
    GroupProgress {
        /// Which group.
        group: GroupId,
        /// Highest number of the log that it is true of.
        upto: u64,
        /// Stable, delivered to all, or read by all.
        state: PostState,
    },
    /// A group's hub cannot be reached; posts wait at the own home.
    GroupWaiting {
        /// Which group.
        group: GroupId,
        /// Since when, Unix milliseconds of the home's clock.
        since_ms: u64,
    },
    /// A link of a group's chain took effect.
    GroupChanged {
        /// Which group.
        group: GroupId,
        /// Who made it; none if a server did.
        by: Option<AccountId>,
        /// What it changed.
        change: Change,
    },
    /// A change of this device was undone by a new term; what has to be done again by itself is.
    GroupChangeUndone {
        /// Which group.
        group: GroupId,
        /// Why, for people.
        reason: String,
    },
    /// A group has another hub.
    GroupTerm {
        /// Which group.
        group: GroupId,
        /// The term that began.
        term: u64,
        /// The domain that orders the log now.
        hub: Domain,
    },
    /// A new term undid the end of a group's log; the posts there come again, perhaps in another order.
    GroupRewritten {
        /// Which group.
        group: GroupId,
        /// The last number that stayed.
        after: u64,
    },
    /// Entries of a group's log are not to be had any more.
    GroupGap {
        /// Which group.
        group: GroupId,
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
    /// A group's hub signed two histories; both are kept as proof, and nothing is sent there until it has another hub.
    GroupFork {
        /// Which group.
        group: GroupId,
    },
    /// A group's log breaks a rule, or says what this version cannot understand: it is not followed any more.
    GroupDamaged {
        /// Which group.
        group: GroupId,
        /// Why, for people.
        reason: String,
    },
}

/// What a link of a group's chain changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// These accounts were invited.
    Invited(Vec<AccountId>),
    /// An account accepted its invitation.
    Joined(AccountId),
    /// An account left, or declined.
    Left(AccountId),
    /// These accounts were removed.
    Removed(Vec<AccountId>),
    /// An account has this rank now.
    Rank(AccountId, Rank),
    /// Which rank may do what.
    Policy,
    /// Name and description, as they are now.
    Profile {
        /// The name.
        name: String,
        /// The description.
        description: String,
    },
    /// Who keeps the log.
    Keepers,
    /// Who orders the log.
    Hub,
    /// A device left an account of the group, or the account moved.
    Advanced(AccountId),
    /// Something else.
    Other,
}
