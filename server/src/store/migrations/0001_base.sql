-- Numbers are stored as SQLite's signed 64-bit integers; ids and hashes as their bytes.

-- Directory: who is known here.
CREATE TABLE account (
    id      BLOB PRIMARY KEY,
    address TEXT NOT NULL,
    local   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE account_link (
    account BLOB NOT NULL,
    number  INTEGER NOT NULL,
    link    BLOB NOT NULL,
    at_ms   INTEGER NOT NULL,
    PRIMARY KEY (account, number)
) WITHOUT ROWID;

-- A name that was given stays given.
CREATE TABLE name (
    address TEXT PRIMARY KEY,
    account BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE device (
    id         BLOB PRIMARY KEY,
    account    BLOB NOT NULL,
    log        INTEGER NOT NULL,
    counter    INTEGER NOT NULL,
    digest     BLOB NOT NULL,
    record     BLOB NOT NULL,
    keyed      INTEGER NOT NULL,
    told_low   INTEGER NOT NULL,
    ec_high    INTEGER NOT NULL,
    kyber_high INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX device_account ON device (account);
CREATE UNIQUE INDEX device_log ON device (log);

CREATE TABLE prekey (
    device BLOB NOT NULL,
    kind   INTEGER NOT NULL,
    id     INTEGER NOT NULL,
    key    BLOB NOT NULL,
    PRIMARY KEY (device, kind, id)
);

CREATE TABLE token (
    digest BLOB PRIMARY KEY
) WITHOUT ROWID;

-- Domains that hold an account's chain, and until when they hear of its links.
CREATE TABLE handed (
    account BLOB NOT NULL,
    domain  TEXT NOT NULL,
    at_ms   INTEGER NOT NULL,
    PRIMARY KEY (account, domain)
) WITHOUT ROWID;

-- Logs: mailboxes and outboxes.
CREATE TABLE log (
    id          INTEGER PRIMARY KEY,
    incarnation BLOB NOT NULL,
    first       INTEGER NOT NULL,
    last        INTEGER NOT NULL,
    before      BLOB NOT NULL,
    hash        BLOB NOT NULL,
    lapsed      INTEGER NOT NULL,
    base        INTEGER NOT NULL
);

-- A row without content is a number that holds nothing any more; number and hash stay.
CREATE TABLE entry (
    log        INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    hash       BLOB NOT NULL,
    content    BLOB,
    void       INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    key        BLOB,
    aux        INTEGER NOT NULL
);
CREATE UNIQUE INDEX entry_place ON entry (log, n);
CREATE INDEX entry_expiry ON entry (expires_at) WHERE content IS NOT NULL AND expires_at > 0;
CREATE INDEX entry_key ON entry (log, key) WHERE key IS NOT NULL;

CREATE TABLE outcome (
    device  BLOB NOT NULL,
    counter INTEGER NOT NULL,
    digest  BLOB NOT NULL,
    outcome BLOB NOT NULL,
    PRIMARY KEY (device, counter)
) WITHOUT ROWID;

CREATE TABLE lane (
    sender    BLOB NOT NULL,
    recipient BLOB NOT NULL,
    state     BLOB NOT NULL,
    PRIMARY KEY (sender, recipient)
) WITHOUT ROWID;

-- Numbers of lanes towards accounts here that are not disposed of.
CREATE TABLE open (
    recipient    BLOB NOT NULL,
    sender       BLOB NOT NULL,
    number       INTEGER NOT NULL,
    upto         INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    PRIMARY KEY (recipient, sender, number)
) WITHOUT ROWID;
CREATE INDEX open_expiry ON open (expires_at);

-- Federation.
CREATE TABLE peer (
    id     INTEGER PRIMARY KEY,
    domain TEXT NOT NULL,
    log    INTEGER NOT NULL,
    state  BLOB NOT NULL
);

CREATE TABLE refusal (
    peer    INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    failure BLOB NOT NULL,
    PRIMARY KEY (peer, n)
) WITHOUT ROWID;

-- Facts of which only the newest counts: they get a number in the outbox when they are shipped.
CREATE TABLE owed (
    peer  INTEGER NOT NULL,
    key   BLOB NOT NULL,
    entry BLOB NOT NULL,
    PRIMARY KEY (peer, key)
) WITHOUT ROWID;
