//! What a client tells the program around it.

use tidings_proto::id::{AccountId, DeviceId, MessageId};
use tidings_proto::name::Address;

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
}
