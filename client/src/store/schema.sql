-- Version 1. Frozen once released: later versions add files beside this one.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- Everybody this device knows, itself included. `accepted`: 0 never decided, 1 accepted, 2 blocked. `hidden`: a
-- stranger whose request was dismissed.
CREATE TABLE account (
    id       BLOB PRIMARY KEY,
    address  TEXT NOT NULL,
    accepted INTEGER NOT NULL DEFAULT 0,
    verified INTEGER NOT NULL DEFAULT 0,
    forked   INTEGER NOT NULL DEFAULT 0,
    lifetime INTEGER NOT NULL DEFAULT 0,
    hidden   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX account_by_address ON account (address);

-- Accounts that only copies of this account's own messages name, with where the copies say they live.
CREATE TABLE stranger (
    id      BLOB PRIMARY KEY,
    address TEXT NOT NULL
) STRICT;

CREATE TABLE account_link (
    account    BLOB NOT NULL,
    number     INTEGER NOT NULL,
    body       BLOB NOT NULL,
    signatures BLOB NOT NULL,
    PRIMARY KEY (account, number)
) STRICT;

-- The other history of an account whose chain forked, whole, as evidence.
CREATE TABLE fork_link (
    account    BLOB NOT NULL,
    number     INTEGER NOT NULL,
    body       BLOB NOT NULL,
    signatures BLOB NOT NULL,
    PRIMARY KEY (account, number)
) STRICT;

-- Heads of the own chain that a device was told about, so that it is told once.
CREATE TABLE heads_told (
    device BLOB NOT NULL,
    head   BLOB NOT NULL,
    PRIMARY KEY (device, head)
) STRICT;

-- libsignal's records. `kind`: session, one-time, signed, kyber, kyber-use. Replaced prekeys are kept for a time.
CREATE TABLE record (
    kind           TEXT NOT NULL,
    key            TEXT NOT NULL,
    value          BLOB NOT NULL,
    replaced_at_ms INTEGER,
    PRIMARY KEY (kind, key)
) STRICT;

CREATE TABLE message (
    seq          INTEGER PRIMARY KEY,
    id           BLOB NOT NULL UNIQUE,
    conversation BLOB NOT NULL,
    sender       BLOB NOT NULL,
    device       BLOB NOT NULL,
    text         TEXT NOT NULL,
    reply_to     BLOB,
    sent_at_ms   INTEGER NOT NULL,
    lane_links   INTEGER NOT NULL DEFAULT 0,
    lane_home    BLOB,
    number       INTEGER NOT NULL DEFAULT 0,
    own_number   INTEGER NOT NULL DEFAULT 0,
    lifetime     INTEGER NOT NULL DEFAULT 0,
    state        INTEGER NOT NULL,
    reason       TEXT,
    gone_at_ms   INTEGER
) STRICT;
-- The newest place that a message was given.
CREATE TABLE place (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL
) STRICT;
CREATE INDEX message_by_conversation ON message (conversation, seq);
CREATE INDEX message_by_lane ON message (conversation, sender, number);
CREATE INDEX message_by_device ON message (conversation, device, own_number);
CREATE INDEX message_gone ON message (gone_at_ms) WHERE gone_at_ms IS NOT NULL;
CREATE INDEX message_waiting ON message (state, seq) WHERE state = 0;

-- Submissions as sent: exact bytes, kept until the outcome is known.
CREATE TABLE submission (
    counter INTEGER PRIMARY KEY,
    message BLOB,
    bytes   BLOB NOT NULL
) STRICT;
CREATE INDEX submission_by_message ON submission (message);

-- Accepted submissions until the recipient's home is known to have them: sent again if the own home loses state.
CREATE TABLE kept (
    counter       INTEGER PRIMARY KEY,
    message       BLOB NOT NULL,
    bytes         BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX kept_by_message ON kept (message);

-- What every ciphertext of a message holds, for supplements and resends.
CREATE TABLE sealed (
    message       BLOB PRIMARY KEY,
    header        BLOB NOT NULL,
    content       BLOB NOT NULL,
    expires_at_ms INTEGER
) STRICT;

-- SHA-256 of each ciphertext of a message: what a report has to name.
CREATE TABLE ciphertext_sent (
    message BLOB NOT NULL,
    device  BLOB NOT NULL,
    hash    BLOB NOT NULL,
    PRIMARY KEY (message, device, hash)
) STRICT;

-- The newest watermark of each lane of own messages and each state: it may come before the number's own outcome.
CREATE TABLE mark (
    conversation BLOB NOT NULL,
    links        INTEGER NOT NULL,
    home         BLOB NOT NULL,
    state        INTEGER NOT NULL,
    upto         INTEGER NOT NULL,
    exceptions   TEXT NOT NULL,
    PRIMARY KEY (conversation, links, home, state)
) STRICT;

-- Notices about numbers whose outcome has not come yet.
CREATE TABLE early_notice (
    seq          INTEGER PRIMARY KEY,
    conversation BLOB NOT NULL,
    body         BLOB NOT NULL
) STRICT;

-- Messages that could not be read, until they come again or expire. `seq` is their place in the conversation.
CREATE TABLE unreadable (
    seq           INTEGER PRIMARY KEY,
    sender        BLOB NOT NULL,
    conversation  BLOB NOT NULL,
    links         INTEGER NOT NULL,
    home          BLOB NOT NULL,
    number        INTEGER NOT NULL,
    device        BLOB NOT NULL,
    ciphertext    BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL
) STRICT;

-- Mailbox entries of a kind that this version does not know, for the one that does.
CREATE TABLE unknown_entry (
    seq  INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- The highest number seen of each device in each conversation.
CREATE TABLE device_seen (
    conversation BLOB NOT NULL,
    device       BLOB NOT NULL,
    number       INTEGER NOT NULL,
    PRIMARY KEY (conversation, device)
) STRICT;

-- Mailbox entries that cannot be read before a chain has been fetched, in order.
CREATE TABLE stash (
    seq    INTEGER PRIMARY KEY,
    sender BLOB NOT NULL,
    body   BLOB NOT NULL
) STRICT;
CREATE INDEX stash_by_sender ON stash (sender, seq);

-- How far each lane towards this account was seen by this device, read by any, and `told` to the home as read.
CREATE TABLE lane (
    sender BLOB NOT NULL,
    links  INTEGER NOT NULL,
    home   BLOB NOT NULL,
    seen   INTEGER NOT NULL DEFAULT 0,
    read   INTEGER NOT NULL DEFAULT 0,
    told   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sender, links, home)
) STRICT;

-- What is to be sent to single devices.
CREATE TABLE errand (
    seq     INTEGER PRIMARY KEY,
    account BLOB NOT NULL,
    device  BLOB NOT NULL,
    content BLOB,
    message BLOB,
    mark    BLOB
) STRICT;

CREATE TABLE resend (
    device BLOB NOT NULL,
    mark   BLOB NOT NULL,
    times  INTEGER NOT NULL,
    PRIMARY KEY (device, mark)
) STRICT;

CREATE TABLE session_reset (
    device BLOB PRIMARY KEY,
    at_ms  INTEGER NOT NULL
) STRICT;
