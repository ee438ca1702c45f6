-- Version 2: groups.

-- Groups this device knows. `status`: 0 being made, 1 invited, 2 joining, 3 member, 4 gone. `state` is the encoded
-- GroupState after the last entry; `head` the newest signed head, `fork` one that contradicts it. `awaits` is a link
-- that a refusal named: nothing is encrypted before it is here.
CREATE TABLE chat (
    id            BLOB PRIMARY KEY,
    status        INTEGER NOT NULL,
    state         BLOB,
    invitation    BLOB,
    inviter       BLOB,
    profile_key   BLOB NOT NULL,
    name          TEXT NOT NULL,
    description   TEXT NOT NULL DEFAULT '',
    term          INTEGER NOT NULL DEFAULT 0,
    seq           INTEGER NOT NULL DEFAULT 0,
    hash          BLOB NOT NULL,
    head          BLOB,
    fork          BLOB,
    stable        INTEGER NOT NULL DEFAULT 0,
    all_delivered INTEGER NOT NULL DEFAULT 0,
    all_read      INTEGER NOT NULL DEFAULT 0,
    read          INTEGER NOT NULL DEFAULT 0,
    told          INTEGER NOT NULL DEFAULT 0,
    own_number    INTEGER NOT NULL DEFAULT 0,
    damaged       TEXT,
    waiting_ms    INTEGER,
    awaits        BLOB
) STRICT;

-- Places of a group's log that were read, and after links the state: what a new term goes back to.
CREATE TABLE chat_place (
    chat  BLOB NOT NULL,
    seq   INTEGER NOT NULL,
    term  INTEGER NOT NULL,
    hash  BLOB NOT NULL,
    state BLOB,
    PRIMARY KEY (chat, seq)
) STRICT;

-- Links of a group's chain that this device verified.
CREATE TABLE chat_link (
    chat       BLOB NOT NULL,
    number     INTEGER NOT NULL,
    id         BLOB NOT NULL,
    seq        INTEGER NOT NULL,
    body       BLOB NOT NULL,
    signatures BLOB NOT NULL,
    PRIMARY KEY (chat, number)
) STRICT;
CREATE INDEX chat_link_by_id ON chat_link (chat, id);

-- The last number of each device of a group. `loose`: entries were passed over, it may jump once.
CREATE TABLE chat_number (
    chat    BLOB NOT NULL,
    account BLOB NOT NULL,
    device  BLOB NOT NULL,
    number  INTEGER NOT NULL,
    loose   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (chat, account, device)
) STRICT;

-- Posts. `seq` is none until the log has it. `counter` is that of the submission that carries an own one.
CREATE TABLE post (
    local      INTEGER PRIMARY KEY,
    id         BLOB NOT NULL UNIQUE,
    chat       BLOB NOT NULL,
    term       INTEGER,
    seq        INTEGER,
    sender     BLOB NOT NULL,
    device     BLOB NOT NULL,
    number     INTEGER NOT NULL DEFAULT 0,
    text       TEXT NOT NULL,
    reply_term INTEGER,
    reply_seq  INTEGER,
    mentions   BLOB NOT NULL,
    sent_at_ms INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    reason     TEXT,
    digest     BLOB,
    counter    INTEGER
) STRICT;
CREATE INDEX post_by_chat ON post (chat, local);
CREATE INDEX post_by_seq ON post (chat, seq);
CREATE INDEX post_by_digest ON post (digest);
CREATE INDEX post_waiting ON post (state, local) WHERE state = 0;

-- Entries of the log whose sender key is not here, with the place that the post will have.
CREATE TABLE undecrypted (
    chat         BLOB NOT NULL,
    seq          INTEGER NOT NULL,
    local        INTEGER NOT NULL,
    term         INTEGER NOT NULL,
    device       BLOB NOT NULL,
    distribution BLOB NOT NULL,
    post         BLOB NOT NULL,
    PRIMARY KEY (chat, seq)
) STRICT;
CREATE INDEX undecrypted_by_device ON undecrypted (chat, device);

-- libsignal's sender keys, of others and own.
CREATE TABLE sender_key (
    chat         BLOB NOT NULL,
    account      BLOB NOT NULL,
    device       BLOB NOT NULL,
    distribution BLOB NOT NULL,
    record       BLOB NOT NULL,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (chat, device, distribution)
) STRICT;

-- The rotation in use of the own key.
CREATE TABLE own_key (
    chat         BLOB PRIMARY KEY,
    distribution BLOB NOT NULL,
    head_number  INTEGER NOT NULL,
    posts        INTEGER NOT NULL,
    at_ms        INTEGER NOT NULL
) STRICT;

-- Who was given which rotation, and what: the same is given again when they ask.
CREATE TABLE key_given (
    chat         BLOB NOT NULL,
    distribution BLOB NOT NULL,
    device       BLOB NOT NULL,
    message      BLOB NOT NULL,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (chat, distribution, device)
) STRICT;

-- When devices were asked for a key (`kind` 0), and given one again because they asked (1).
CREATE TABLE key_request (
    kind         INTEGER NOT NULL,
    device       BLOB NOT NULL,
    distribution BLOB NOT NULL,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (kind, device, distribution, at_ms)
) STRICT;

-- Chains of servers that sign in groups.
CREATE TABLE server_link (
    server     BLOB NOT NULL,
    number     INTEGER NOT NULL,
    body       BLOB NOT NULL,
    signatures BLOB NOT NULL,
    PRIMARY KEY (server, number)
) STRICT;

-- What a direct message says that is no text, encoded.
CREATE TABLE message_body (
    message BLOB PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;

-- A service message that belongs to a group.
ALTER TABLE errand ADD COLUMN chat BLOB;
