//! The first steps of a connection: the home is pinned, its life compared with the one this device knows, and
//! the mailbox is asked for (spec 02-session, 2.3; 03-logs, 3.6 and 3.7; 06-messages, 6.3).

use prost::Message as _;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::Position;
use tidings_proto::pb;

use super::session::{lost, put_position, wire};
use super::{Ended, Engine, Halt};
use crate::error::StoreError;
use crate::event::Event;
use crate::home::{Home, Pipeline};
use crate::store::queue::{self, Known};
use crate::store::{Store, put_value};

/// What there is to do about the counter that the home states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counter {
    /// What is unanswered is sent again.
    Fits,
    /// The home forgot submissions that it answered.
    HomeBehind,
    /// This device's store is older than what was sent with it, or a copy.
    RolledBack,
}

/// Compares (MSG-019). `known` is what this device knows of the counter that the home states with a digest.
fn compare(digest: &[u8], known: Known) -> Counter {
    match known {
        Known::Beginning => Counter::Fits,
        Known::Made(made) if made.as_ref() == digest => Counter::Fits,
        Known::Made(_) | Known::Never => Counter::RolledBack,
        Known::Older => Counter::HomeBehind,
    }
}

/// The home's chain as it is to be held from now on: what was held, and what it sent on top.
pub(crate) async fn server_chain(store: &Store, home: &Home) -> Result<Vec<u8>, StoreError> {
    let mut held = pb::PeerIdentity::default();
    if let Some(bytes) = store.value("server-chain").await? {
        let broken = |_| StoreError::Inconsistent { table: "meta", column: "server-chain" };
        held = pb::PeerIdentity::decode(bytes.as_slice()).map_err(broken)?;
    }
    let new = home.server.chain.len().saturating_sub(held.chain.len());
    let sent = &home.server.welcome.server_chain;
    held.chain.extend(sent.iter().skip(sent.len().saturating_sub(new)).cloned());
    Ok(held.encode_to_vec())
}

impl Engine {
    /// Everything between Ready and the first entry. Gives the position that the mailbox is read from.
    pub(super) async fn enter(
        &mut self,
        home: &Home,
        local: &mut Pipeline,
        state: &pb::DeviceState,
    ) -> Result<Position, Ended> {
        self.pin(home).await?;
        let incarnation = home.server.chain.state().incarnation();
        self.meet_incarnation(&incarnation).await?;
        let known = self.store.known(state.counter).await?;
        match compare(&state.counter_digest, known) {
            Counter::Fits => {}
            Counter::HomeBehind => return Err(Ended::Halt(Halt::HomeLostState)),
            Counter::RolledBack => return Err(Ended::Halt(Halt::RolledBack)),
        }
        let stored = self.stored_position().await?;
        let after = stored.map(|position| wire(&position));
        let syncing: pb::Syncing = local.ask(&pb::Sync { after }).await?;
        let start = syncing.start.as_ref().and_then(read_position);
        let start = start.ok_or_else(|| lost("the home named an impossible place to start from"))?;
        self.start_at(stored, start).await?;
        Ok(start)
    }

    /// Holds the home's chain from now on: it pins the home (AUT-016).
    async fn pin(&mut self, home: &Home) -> Result<(), StoreError> {
        if self.server.as_ref().is_none_or(|held| held.len() < home.server.chain.len()) {
            let chain = server_chain(&self.store, home).await?;
            let mut tx = self.store.begin().await?;
            put_value(&mut tx, "server-chain", &chain).await?;
            tx.commit().await?;
        }
        self.server = Some(home.server.chain.clone());
        Ok(())
    }

    /// The steps of 3.7, if this is not the life of the home that the device knows (LOG-063).
    async fn meet_incarnation(&mut self, incarnation: &Incarnation) -> Result<(), StoreError> {
        let known = self.store.value("incarnation").await?;
        if known.as_deref() == Some(incarnation.as_ref()) {
            return Ok(());
        }
        queue::begin_anew(&self.store, incarnation).await?;
        if known.is_some() {
            self.tell(Event::HomeRestored);
        }
        Ok(())
    }

    /// The steps of 3.6 for the device.
    async fn start_at(&self, stored: Option<Position>, start: Position) -> Result<(), Ended> {
        if stored == Some(start) {
            return Ok(());
        }
        if let Some(stored) = stored {
            if start.incarnation != stored.incarnation || start.n < stored.n {
                let refusal = Refusal::new(Code::POSITION_INVALID, "the mailbox starts before what was read");
                return Err(Ended::Violation(refusal));
            }
            self.tell(Event::MailboxLapsed);
        }
        let mut tx = self.store.begin().await?;
        put_position(&mut tx, &start).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    async fn stored_position(&self) -> Result<Option<Position>, StoreError> {
        let Some(bytes) = self.store.value("position").await? else { return Ok(None) };
        let position =
            pb::Position::decode(bytes.as_slice()).ok().and_then(|position| read_position(&position));
        position.map(Some).ok_or(StoreError::Inconsistent { table: "meta", column: "position" })
    }
}

fn read_position(position: &pb::Position) -> Option<Position> {
    let incarnation = Incarnation::try_from(&position.incarnation).ok()?;
    let hash = if position.hash.is_empty() { Hash::ZERO } else { Hash::try_from(&position.hash).ok()? };
    Position::new(incarnation, position.n, hash).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_digest_under_a_counter_that_was_given_out_fits() {
        let digest = Hash([7; 32]);
        assert_eq!(compare(&[], Known::Beginning), Counter::Fits);
        assert_eq!(compare(digest.as_ref(), Known::Made(digest)), Counter::Fits);
        assert_eq!(compare(digest.as_ref(), Known::Made(Hash([8; 32]))), Counter::RolledBack);
        assert_eq!(compare(digest.as_ref(), Known::Never), Counter::RolledBack);
        assert_eq!(compare(digest.as_ref(), Known::Older), Counter::HomeBehind);
    }
}
