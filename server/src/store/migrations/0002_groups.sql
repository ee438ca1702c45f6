-- Groups. The log of a group is stored once for the whole home; every device has a cursor in it.

-- The group's replica in parts, so that a message does not write a thousand members.
-- The keys are the replica's: the state after the newest link, the end of the log, device numbers, followers, pending
-- posts, marks, votes.
CREATE TABLE group_part (
    id    BLOB NOT NULL,
    key   BLOB NOT NULL,
    value BLOB NOT NULL
);
CREATE UNIQUE INDEX group_part_place ON group_part (id, key);

-- Entries with their evidence, as they go to devices and other homes. The slot is what the replica knows of each.
CREATE TABLE group_entry (
    id     BLOB NOT NULL,
    seq    INTEGER NOT NULL,
    link   INTEGER NOT NULL,
    slot   BLOB NOT NULL,
    record BLOB NOT NULL,
    at_ms  INTEGER NOT NULL
);
CREATE UNIQUE INDEX group_entry_place ON group_entry (id, seq);
CREATE INDEX group_entry_link ON group_entry (id, seq) WHERE link = 1;

-- Accounts of this home that read a group. upto > 0: removed there, and nothing after it is for them.
CREATE TABLE group_reader (
    account BLOB NOT NULL,
    id      BLOB NOT NULL,
    upto    INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) WITHOUT ROWID;
CREATE INDEX group_reader_group ON group_reader (id);

-- What each of their devices has durably.
CREATE TABLE group_cursor (
    id     BLOB NOT NULL,
    device BLOB NOT NULL,
    term   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    hash   BLOB NOT NULL,
    PRIMARY KEY (id, device)
) WITHOUT ROWID;
