//! Two homes over real QUIC on the loopback address, with certificates of a test authority and stores of maps.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, as it is to"
)]

mod homes;
mod model;

use homes::{Home, ModelHost, accepted, domain, two_homes};
use tidings_federation::peer::PeerState;
use tidings_federation::policy::Rules;
use tidings_proto::error::Code;
use tidings_proto::id::AccountId;
use tidings_proto::pb;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_meet_and_exchange_both_ways() {
    let (a, b, _authority) = two_homes().await;
    let (of_a, of_b) = (a.host.genesis(), b.host.genesis());
    a.send("b.test", 1..=500);
    b.host.until(&of_a, |store| store.effects == accepted(1..=500)).await;
    a.host.until(&of_b, |store| store.done == 500).await;
    b.send("a.test", 501..=600);
    a.host.until(&of_b, |store| store.effects == accepted(501..=600)).await;
    b.host.until(&of_a, |store| store.done == 100).await;
    b.host.until(&of_a, |store| store.unseen.is_empty()).await;
    let refused = a.host.with(&of_b, |store| store.results.get(&3).copied());
    assert_eq!(refused, Some(Err(Code::NOT_HERE)));
    let status = a.federation.peers().await;
    assert_eq!(status.len(), 1);
    assert_eq!((status[0].state, status[0].genesis), (PeerState::Up, Some(of_b)));
    a.federation.stop().await;
    b.host.until_state(&domain("a.test"), PeerState::Unreachable).await;
    b.federation.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_can_begin_at_once() {
    let (a, b, _authority) = two_homes().await;
    let (of_a, of_b) = (a.host.genesis(), b.host.genesis());
    a.send("b.test", 1..=200);
    b.send("a.test", 201..=400);
    b.host.until(&of_a, |store| store.effects == accepted(1..=200)).await;
    a.host.until(&of_b, |store| store.effects == accepted(201..=400)).await;
    a.host.until(&of_b, |store| store.done == 200).await;
    b.host.until(&of_a, |store| store.done == 200).await;
    // Dials of both that cross again and again leave one connection and lose nothing.
    for round in 0..10 {
        let (first, last) = (1000 + 20 * round, 1019 + 20 * round);
        a.federation.retry(&domain("b.test")).await;
        b.federation.retry(&domain("a.test")).await;
        a.send("b.test", first..=last);
        b.host
            .until(&of_a, move |store| accepted(first..=last).iter().all(|item| store.had.contains(item)))
            .await;
    }
    a.federation.stop().await;
    b.federation.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_both_ways_and_are_refused_where_they_have_to_be() {
    let (a, b, _authority) = two_homes().await;
    let request = |address: &str| pb::Resolve { address: address.to_owned(), ..Default::default() };
    let answer = a.federation.resolve(None, &domain("b.test"), request("x@b.test")).await.unwrap();
    assert_eq!(answer.account.as_ref(), b"a.test");
    let answer = b.federation.resolve(None, &domain("a.test"), request("x@a.test")).await.unwrap();
    assert_eq!(answer.account.as_ref(), b"b.test");
    let refusal = a.federation.resolve(None, &domain("b.test"), request("x@c.test")).await.unwrap_err();
    assert_eq!(refusal.code, Code::NOT_HERE);
    let refusal = a.federation.fetch_bundles(None, &domain("b.test"), Default::default()).await.unwrap_err();
    assert_eq!(refusal.code, Code::NO_SUCH_ACCOUNT);
    let refusal = a.federation.resolve(None, &domain("nowhere.example"), request("x@nowhere.example")).await;
    assert_eq!(refusal.unwrap_err().code, Code::PEER_UNKNOWN);
    a.federation.reload(Rules { deny: vec!["b.test".parse().unwrap()], ..Rules::default() });
    let refusal = a.federation.resolve(None, &domain("b.test"), request("x@b.test")).await.unwrap_err();
    assert_eq!(refusal.code, Code::NOT_PERMITTED);
    a.host.until_state(&domain("b.test"), PeerState::Gone).await;
    b.host.until_state(&domain("a.test"), PeerState::Unreachable).await;
    let refusal = b.federation.resolve(None, &domain("a.test"), request("x@a.test")).await.unwrap_err();
    assert_eq!(refusal.code, Code::NOT_PERMITTED, "a denies b, and b is told");
    a.federation.stop().await;
    b.federation.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_returns_gets_what_waited() {
    let (a, b, authority) = two_homes().await;
    let (of_a, of_b) = (a.host.genesis(), b.host.genesis());
    a.send("b.test", 1..=50);
    a.host.until(&of_b, |store| store.done == 50).await;
    b.federation.stop().await;
    a.host.until_state(&domain("b.test"), PeerState::Unreachable).await;
    a.send("b.test", 51..=100);
    let Home { host, endpoint, federation, _gateway } = b;
    drop((federation, _gateway));
    let address = a.endpoint.local_addr().unwrap();
    let b = Home::start(&authority, host, endpoint, &[("a.test", address)]).await;
    b.federation.retry(&domain("a.test")).await;
    b.host.until(&of_a, |store| store.effects == accepted(1..=100)).await;
    a.host.until(&of_b, |store| store.done == 100).await;
    a.federation.stop().await;
    b.federation.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_that_shows_another_chain_is_replaced() {
    let (a, b, authority) = two_homes().await;
    let of_b = b.host.genesis();
    a.send("b.test", 1..=10);
    a.host.until(&of_b, |store| store.done == 10).await;
    b.federation.stop().await;
    a.host.until_state(&domain("b.test"), PeerState::Unreachable).await;
    let Home { endpoint, federation, _gateway, .. } = b;
    drop((federation, _gateway));
    let address = a.endpoint.local_addr().unwrap();
    let other = Home::start(&authority, ModelHost::new("b.test", 3), endpoint, &[("a.test", address)]).await;
    a.send("b.test", 11..=20);
    a.federation.retry(&domain("b.test")).await;
    a.host.until_state(&domain("b.test"), PeerState::Replaced).await;
    assert_eq!(
        a.federation.admits(&domain("b.test"), AccountId([1; 32])).unwrap_err().code,
        Code::PEER_REPLACED
    );
    let told = a.host.with(&of_b, |store| store.results.get(&11).copied());
    assert_eq!(told, Some(Err(Code::PEER_REPLACED)));
    let theirs = other.host.genesis();
    assert!(!other.host.stores.lock().unwrap().contains_key(&of_b));
    a.federation.accept_replacement(&domain("b.test")).await;
    let request = pb::Resolve { address: "x@b.test".to_owned(), ..Default::default() };
    a.federation.resolve(None, &domain("b.test"), request).await.unwrap();
    a.host.until_state(&domain("b.test"), PeerState::Up).await;
    assert!(a.host.records.lock().unwrap().contains_key(&(domain("b.test"), Some(theirs))));
    a.federation.stop().await;
    other.federation.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_its_domain_never_showed_is_not_believed() {
    let (a, b, authority) = two_homes().await;
    // It holds a certificate of its own name, and claims to be b.test.
    let endpoint = authority.endpoint("evil.test");
    let address = a.endpoint.local_addr().unwrap();
    let evil = Home::start(&authority, ModelHost::new("b.test", 9), endpoint, &[("a.test", address)]).await;
    evil.send("a.test", 1..=10);
    // a looks the domain up and finds the real b.
    a.host.until_state(&domain("b.test"), PeerState::Up).await;
    let known = a.host.records.lock().unwrap().get(&(domain("b.test"), Some(b.host.genesis()))).cloned();
    assert_eq!(known.map(|record| record.state), Some(PeerState::Up));
    assert!(!a.host.stores.lock().unwrap().contains_key(&evil.host.genesis()));
    for home in [a, b, evil] {
        home.federation.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_makes_its_home_meet_only_so_many_new_domains() {
    let (a, b, _authority) = two_homes().await;
    let (hasty, other) = (AccountId([1; 32]), AccountId([2; 32]));
    for n in 0..60 {
        a.federation.admits(&domain(&format!("new{n}.example")), hasty).unwrap();
    }
    let refusal = a.federation.admits(&domain("one.more"), hasty).unwrap_err();
    assert_eq!(refusal.code, Code::TOO_FAST);
    let request = pb::Resolve { address: "x@one.more".to_owned(), ..Default::default() };
    let refusal = a.federation.resolve(Some(hasty), &domain("one.more"), request).await.unwrap_err();
    assert_eq!(refusal.code, Code::TOO_FAST);
    assert!(a.federation.admits(&domain("one.more"), other).is_ok());
    assert!(a.federation.admits(&domain("b.test"), hasty).is_ok(), "a static peer needs no looking up");
    a.federation.stop().await;
    b.federation.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_about_a_group_is_answered_by_the_peers_host() {
    let (a, b, _authority) = two_homes().await;
    let batch = pb::GroupBatch { group: b"g:".to_vec().into(), ..Default::default() };
    let taken: pb::GroupTaken = a.federation.group(None, &domain("b.test"), &batch).await.unwrap();
    assert_eq!(taken.group, &b"g:a.test"[..], "the proven domain is who asks");
    let unnamed = pb::GroupBatch::default();
    let unknown = a.federation.group::<_, pb::GroupTaken>(None, &domain("b.test"), &unnamed).await;
    assert_eq!(unknown.unwrap_err().code, Code::NO_SUCH_GROUP);
    let other = a.federation.group::<_, pb::GroupPlaced>(None, &domain("b.test"), &batch).await;
    assert_eq!(other.unwrap_err().code, Code::PEER_UNREACHABLE, "an answer of another type is none");
    a.federation.stop().await;
    b.federation.stop().await;
}
