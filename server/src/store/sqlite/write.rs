//! A group of decisions as one transaction: a statement of many rows a table.

use std::collections::BTreeSet;

use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{AssertSqlSafe, Executor as _, QueryBuilder};

use super::{SqliteStore, signed};
use crate::store::writes::gone;
use crate::store::{Later, StoreError, Writes};

/// Values in one statement; SQLite takes up to 32,766.
const VALUES_MAX: usize = 16_000;

impl SqliteStore {
    pub(super) async fn write(&self, writes: &Writes) -> Result<(), StoreError> {
        let statements = statements(writes);
        let mut db = self.writer.acquire().await?;
        let written = transaction(&mut db, statements).await;
        if written.is_err() {
            // There may be none any more: SQLite ends a transaction by itself when the disk fails.
            let _nothing_open = db.execute("ROLLBACK").await;
        }
        written
    }
}

/// Not sqlx's transaction: that one counts, and after a rollback by SQLite itself it would never begin another.
async fn transaction(db: &mut SqliteConnection, statements: Vec<Statement>) -> Result<(), StoreError> {
    db.execute("BEGIN IMMEDIATE").await?;
    for statement in statements {
        statement.execute(&mut *db).await?;
    }
    db.execute("COMMIT").await?;
    Ok(())
}

/// A statement with its values.
pub(super) enum Statement {
    /// Of many rows; never the same twice.
    Many(QueryBuilder<Sqlite>),
    /// Of one row: prepared once.
    One(&'static str, Vec<Value>),
}

pub(super) enum Value {
    Number(i64),
    Bytes(Vec<u8>),
}

pub(super) type Values<'a, 'b> = sqlx::query_builder::Separated<'a, Sqlite, &'b str>;

impl Statement {
    async fn execute(self, db: &mut SqliteConnection) -> Result<(), StoreError> {
        match self {
            // Statements of few rows come again and again; those of many would fill the cache.
            Self::Many(mut query) => query.build().persistent(false).execute(db).await?,
            Self::One(statement, values) => {
                let mut query = sqlx::query(AssertSqlSafe(statement));
                for value in values {
                    query = match value {
                        Value::Number(number) => query.bind(number),
                        Value::Bytes(bytes) => query.bind(bytes),
                    };
                }
                query.execute(db).await?
            }
        };
        Ok(())
    }
}

/// All statements of a group, in an order in which none undoes another.
fn statements(writes: &Writes) -> Vec<Statement> {
    let mut out = Vec::new();
    directory(&mut out, writes);
    keys(&mut out, writes);
    logs(&mut out, writes);
    entries(&mut out, writes);
    lanes(&mut out, writes);
    peers(&mut out, writes);
    super::groups::groups(&mut out, &writes.groups);
    out
}

/// Rows of one table, many a statement: `head (…), (…)`.
pub(super) fn put<T>(
    out: &mut Vec<Statement>,
    (head, columns): (&str, usize),
    rows: impl Iterator<Item = T>,
    mut bind: impl FnMut(&mut Values<'_, '_>, T),
) {
    let most = VALUES_MAX.checked_div(columns).unwrap_or(1).max(1);
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let mut query = QueryBuilder::<Sqlite>::new(head);
        query.push(" ");
        query.push_values(rows.by_ref().take(most), |mut values, row| bind(&mut values, row));
        out.push(Statement::Many(query));
    }
}

/// One statement for each row: for what is rare, and for what goes.
pub(super) fn each<T>(
    out: &mut Vec<Statement>,
    statement: &'static str,
    rows: impl Iterator<Item = T>,
    bind: impl Fn(T) -> Vec<Value>,
) {
    out.extend(rows.map(|row| Statement::One(statement, bind(row))));
}

pub(super) fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

fn directory(out: &mut Vec<Statement>, writes: &Writes) {
    put(
        out,
        ("INSERT OR REPLACE INTO account (id, address, local)", 3),
        writes.accounts.values(),
        |values, row| {
            values.push_bind(row.id.to_vec()).push_bind(row.address.clone()).push_bind(row.local);
        },
    );
    let head = "INSERT OR REPLACE INTO account_link (account, number, link, at_ms)";
    put(out, (head, 4), writes.links.values(), |values, row| {
        values
            .push_bind(row.account.to_vec())
            .push_bind(signed(row.number))
            .push_bind(row.link.to_vec())
            .push_bind(signed(row.at_ms));
    });
    put(
        out,
        ("INSERT OR REPLACE INTO name (address, account)", 2),
        writes.names.iter(),
        |values, (name, id)| {
            values.push_bind(name.clone()).push_bind(id.to_vec());
        },
    );
    let head = "INSERT OR REPLACE INTO handed (account, domain, at_ms)";
    put(out, (head, 3), writes.handed.iter(), |values, ((account, domain), at_ms)| {
        values.push_bind(account.to_vec()).push_bind(domain.clone()).push_bind(signed(*at_ms));
    });
    let issued = writes.tokens.iter().filter(|(_, unused)| **unused);
    each(out, "INSERT OR REPLACE INTO token (digest) VALUES (?)", issued, |(digest, _)| {
        vec![bytes(&digest.0)]
    });
    let used = writes.tokens.iter().filter(|(_, unused)| !**unused);
    each(out, "DELETE FROM token WHERE digest = ?", used, |(digest, _)| vec![bytes(&digest.0)]);
}

fn keys(out: &mut Vec<Statement>, writes: &Writes) {
    let gone: BTreeSet<_> = gone(&writes.devices).chain(writes.purged.devices.iter().copied()).collect();
    for statement in [
        "DELETE FROM device WHERE id = ?",
        "DELETE FROM prekey WHERE device = ?",
        "DELETE FROM outcome WHERE device = ?",
    ] {
        each(out, statement, gone.iter(), |id| vec![bytes(&id.0)]);
    }
    let head = "INSERT OR REPLACE INTO device \
        (id, account, log, counter, digest, record, keyed, told_low, ec_high, kyber_high)";
    put(out, (head, 10), writes.devices.values().flatten(), |values, row| {
        values
            .push_bind(row.id.to_vec())
            .push_bind(row.account.to_vec())
            .push_bind(row.log)
            .push_bind(signed(row.counter))
            .push_bind(row.digest.to_vec())
            .push_bind(row.record.to_vec())
            .push_bind(row.keyed)
            .push_bind(row.told_low)
            .push_bind(i64::from(row.ec_high))
            .push_bind(i64::from(row.kyber_high));
    });
    each(out, "DELETE FROM prekey WHERE device = ?", writes.keys_cleared.iter(), |id| vec![bytes(&id.0)]);
    let gone = writes.keys.iter().filter(|(_, key)| key.is_none());
    each(
        out,
        "DELETE FROM prekey WHERE device = ? AND kind = ? AND id = ?",
        gone,
        |((device, kind, id), _)| {
            vec![bytes(&device.0), Value::Number(*kind as i64), Value::Number(i64::from(*id))]
        },
    );
    let held = writes.keys.iter().filter_map(|(place, key)| key.as_ref().map(|key| (place, key)));
    let head = "INSERT OR REPLACE INTO prekey (device, kind, id, key)";
    put(out, (head, 4), held, |values, ((device, kind, id), key)| {
        values
            .push_bind(device.to_vec())
            .push_bind(*kind as i64)
            .push_bind(i64::from(*id))
            .push_bind(key.to_vec());
    });
}

fn logs(out: &mut Vec<Statement>, writes: &Writes) {
    let gone: BTreeSet<i64> = gone(&writes.logs).chain(writes.purged.logs.iter().copied()).collect();
    each(out, "DELETE FROM log WHERE id = ?", gone.iter(), |id| vec![Value::Number(*id)]);
    each(out, "DELETE FROM entry WHERE log = ?", gone.iter(), |id| vec![Value::Number(*id)]);
    let head = "INSERT OR REPLACE INTO log (id, incarnation, first, last, before, hash, lapsed, base)";
    put(out, (head, 8), writes.logs.values().flatten(), |values, row| {
        values
            .push_bind(row.id)
            .push_bind(row.incarnation.to_vec())
            .push_bind(signed(row.first))
            .push_bind(signed(row.last))
            .push_bind(row.before.to_vec())
            .push_bind(row.hash.to_vec())
            .push_bind(row.lapsed)
            .push_bind(signed(row.base));
    });
}

fn entries(out: &mut Vec<Statement>, writes: &Writes) {
    let emptied =
        "UPDATE entry SET content = NULL, key = NULL, void = ? WHERE log = ? AND content IS NOT NULL";
    each(out, emptied, writes.voided_logs.iter(), |(log, reason)| {
        vec![Value::Number(i64::from(*reason)), Value::Number(*log)]
    });
    let emptied = "UPDATE entry SET content = NULL, key = NULL, void = ? WHERE log = ? AND n = ? AND content IS NOT NULL";
    each(out, emptied, writes.voids.iter(), |((log, n), reason)| {
        vec![Value::Number(i64::from(*reason)), Value::Number(*log), Value::Number(signed(*n))]
    });
    let trimmed = "DELETE FROM entry WHERE log = ? AND n <= ?";
    each(out, trimmed, writes.trims.iter(), |(log, upto)| {
        vec![Value::Number(*log), Value::Number(signed(*upto))]
    });
    let head = "INSERT OR REPLACE INTO entry (log, n, hash, content, void, expires_at, key, aux)";
    put(out, (head, 8), writes.entries.values(), |values, row| {
        values
            .push_bind(row.log)
            .push_bind(signed(row.n))
            .push_bind(row.hash.to_vec())
            .push_bind(row.content.as_ref().map(|content| content.to_vec()))
            .push_bind(i64::from(row.void))
            .push_bind(signed(row.expires_at_ms))
            .push_bind(Some(row.key.to_vec()).filter(|key| !key.is_empty()))
            .push_bind(signed(row.aux));
    });
    let head = "INSERT OR REPLACE INTO outcome (device, counter, digest, outcome)";
    put(out, (head, 4), writes.outcomes.iter(), |values, ((device, counter), row)| {
        values
            .push_bind(device.to_vec())
            .push_bind(signed(*counter))
            .push_bind(row.digest.to_vec())
            .push_bind(row.outcome.to_vec());
    });
    let trimmed = "DELETE FROM outcome WHERE device = ? AND counter < ?";
    each(out, trimmed, writes.outcomes_trimmed.iter(), |(device, below)| {
        vec![bytes(&device.0), Value::Number(signed(*below))]
    });
}

fn lanes(out: &mut Vec<Statement>, writes: &Writes) {
    let head = "INSERT OR REPLACE INTO lane (sender, recipient, state)";
    put(out, (head, 3), writes.lanes.iter(), |values, ((sender, recipient), state)| {
        values.push_bind(sender.to_vec()).push_bind(recipient.to_vec()).push_bind(state.to_vec());
    });
    let closed = writes.open.iter().filter(|(_, row)| row.is_none());
    let statement = "DELETE FROM open WHERE recipient = ? AND sender = ? AND number = ?";
    each(out, statement, closed, |(((sender, recipient), number), _)| {
        vec![bytes(&recipient.0), bytes(&sender.0), Value::Number(signed(*number))]
    });
    let head =
        "INSERT OR REPLACE INTO open (recipient, sender, number, upto, expires_at, kind, acknowledged)";
    put(out, (head, 7), writes.open.values().flatten(), |values, row| {
        values
            .push_bind(row.lane.1.to_vec())
            .push_bind(row.lane.0.to_vec())
            .push_bind(signed(row.number))
            .push_bind(signed(row.upto))
            .push_bind(signed(row.expires_at_ms))
            .push_bind(row.kind as i64)
            .push_bind(row.acknowledged);
    });
}

fn peers(out: &mut Vec<Statement>, writes: &Writes) {
    let gone: BTreeSet<i64> = gone(&writes.peers).chain(writes.purged.peers.iter().copied()).collect();
    for statement in [
        "DELETE FROM peer WHERE id = ?",
        "DELETE FROM refusal WHERE peer = ?",
        "DELETE FROM owed WHERE peer = ?",
    ] {
        each(out, statement, gone.iter(), |id| vec![Value::Number(*id)]);
    }
    let head = "INSERT OR REPLACE INTO peer (id, domain, log, state)";
    put(out, (head, 4), writes.peers.values().flatten(), |values, row| {
        values
            .push_bind(row.id)
            .push_bind(row.domain.clone())
            .push_bind(row.log)
            .push_bind(row.state.to_vec());
    });
    let seen = writes.refusals.iter().filter(|(_, failure)| failure.is_none());
    each(out, "DELETE FROM refusal WHERE peer = ? AND n = ?", seen, |((peer, n), _)| {
        vec![Value::Number(*peer), Value::Number(signed(*n))]
    });
    let given = writes
        .refusals
        .iter()
        .filter_map(|(place, failure)| failure.as_ref().map(|failure| (place, failure)));
    each(
        out,
        "INSERT OR REPLACE INTO refusal (peer, n, failure) VALUES (?, ?, ?)",
        given,
        |((peer, n), failure)| vec![Value::Number(*peer), Value::Number(signed(*n)), bytes(failure)],
    );
    let shipped = writes.owed.iter().filter(|(_, entry)| entry.is_none());
    each(out, "DELETE FROM owed WHERE peer = ? AND key = ?", shipped, |((peer, key), _)| {
        vec![Value::Number(*peer), bytes(key)]
    });
    let owed = writes.owed.iter().filter_map(|(place, entry)| entry.as_ref().map(|entry| (place, entry)));
    put(out, ("INSERT OR REPLACE INTO owed (peer, key, entry)", 3), owed, |values, ((peer, key), entry)| {
        values.push_bind(*peer).push_bind(key.to_vec()).push_bind(entry.to_vec());
    });
}

impl SqliteStore {
    pub(super) fn commit_later<'a>(&'a self, writes: &'a Writes) -> Later<'a, ()> {
        Box::pin(self.write(writes))
    }
}
