//! What a sender has to know about numbers of a lane (06-messages, 6.6), and how it is told.

use tidings_federation::peer::PeerState;
use tidings_proto::id::DeviceId;
use tidings_proto::name::Address;
use tidings_proto::pb;

use super::{CHAIN_ANNOUNCE, NOTICE, lasting, watermark};
use crate::accounts::heads;
use crate::node::Shared;
use crate::refusal::Refusal;
use crate::state::{New, Transaction};
use crate::store::{LaneKey, PeerId};

/// Where the sender of a lane is told things: here, or at a peer.
enum Teller {
    Here(Vec<DeviceId>),
    Peer(PeerId),
    Nowhere,
}

fn teller(shared: &Shared, transaction: &mut Transaction<'_>, key: LaneKey, now_ms: u64) -> Teller {
    if transaction.world().local(&key.0).is_some() {
        return Teller::Here(transaction.world().current_devices(&key.0).into_iter().collect());
    }
    let address = transaction.world().lane(&key).map(|lane| lane.sender_address.clone()).unwrap_or_default();
    match Address::parse(&address) {
        Ok(address) if *address.domain() != shared.config.domain => {
            let state = transaction.world().peer_of(address.domain()).map(|peer| peer.record.state);
            // Its outbox is closed: nothing would ever be shipped.
            if matches!(state, Some(PeerState::Replaced | PeerState::Gone)) {
                return Teller::Nowhere;
            }
            let outbox = shared.fresh_incarnation();
            Teller::Peer(transaction.peer_for(address.domain(), outbox, now_ms))
        }
        _ => Teller::Nowhere,
    }
}

/// Tells the sender of a lane by an entry that stands in its place.
pub(crate) fn tell(shared: &Shared, transaction: &mut Transaction<'_>, key: LaneKey, new: &New, now_ms: u64) {
    match teller(shared, transaction, key, now_ms) {
        Teller::Here(devices) => {
            for device in devices {
                transaction.place(device, new.clone());
            }
        }
        Teller::Peer(peer) => transaction.ship(peer, New { aux: now_ms, ..new.clone() }),
        Teller::Nowhere => {}
    }
}

/// Tells the sender of a lane a watermark: only the newest counts.
pub(crate) fn tell_mark(
    shared: &Shared,
    transaction: &mut Transaction<'_>,
    key: LaneKey,
    mark: &pb::Watermark,
    now_ms: u64,
) {
    let new = watermark(key, mark);
    match teller(shared, transaction, key, now_ms) {
        Teller::Here(devices) => {
            for device in devices {
                transaction.place(device, new.clone());
            }
        }
        Teller::Peer(peer) => transaction.owe(peer, new.key, new.entry),
        Teller::Nowhere => {}
    }
}

/// Tells the sender that numbers will never be delivered.
pub(crate) fn closed(
    shared: &Shared,
    transaction: &mut Transaction<'_>,
    key: LaneKey,
    (lane, numbers): (&pb::LaneId, pb::Range),
    (reason, now_ms): (&Refusal, u64),
) {
    let notice = pb::Notice {
        lane: Some(lane.clone()),
        numbers: Some(numbers),
        what: Some(pb::notice::What::Closed(pb::Closed { reason: Some(reason.to_pb()) })),
        at_ms: now_ms,
    };
    tell(shared, transaction, key, &lasting(NOTICE, &notice), now_ms);
}

/// Tells the sender that devices of the recipient had no payload, with the links that explain them before it.
pub(crate) fn missing_devices(
    shared: &Shared,
    transaction: &mut Transaction<'_>,
    key: LaneKey,
    (number, missing): (u64, &[DeviceId]),
    now_ms: u64,
) {
    let world = transaction.world();
    let Some(lane) = world.lane(&key).and_then(|lane| lane.id.clone()) else { return };
    let Some(account) = world.local(&key.1) else { return };
    let head = account.chain.head().to_bytes();
    // The newest links: those that the sender can lack.
    let most = crate::config::Limits::size(shared.config.limits.resolve_links_max());
    let announce = pb::ChainAnnounce {
        account: key.1.to_bytes(),
        address: account.chain.state().address().to_string(),
        links: heads::newest(&account.links, most).to_vec(),
    };
    let what = pb::notice::What::MissingDevices(pb::MissingDevices {
        head,
        devices: missing.iter().map(DeviceId::to_bytes).collect(),
    });
    let numbers = Some(pb::Range { from: number, to: number });
    let notice = pb::Notice { lane: Some(lane), numbers, what: Some(what), at_ms: now_ms };
    tell(shared, transaction, key, &lasting(CHAIN_ANNOUNCE, &announce), now_ms);
    tell(shared, transaction, key, &lasting(NOTICE, &notice), now_ms);
}
