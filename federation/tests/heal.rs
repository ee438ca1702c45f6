//! A home that was restored from an old copy of its server chain, and peers that hold more of it (FED-006, FED-007).
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, as it is to"
)]

mod homes;
mod model;

use std::sync::Arc;
use std::time::Duration;

use homes::{Authority, Home, ModelHost, accepted, domain};
use tidings_federation::peer::PeerState;
use tidings_proto::error::Code;
use tidings_proto::pb;
use tokio::time::timeout;

/// Two homes that have met, of which the first has a link behind its genesis.
struct Met {
    authority: Authority,
    a: Home,
    b: Home,
    link: pb::Link,
}

async fn met() -> Met {
    let logs = tracing_subscriber::EnvFilter::from_default_env();
    let _before = tracing_subscriber::fmt().with_env_filter(logs).with_test_writer().try_init();
    let authority = Authority::new();
    let (at_a, at_b) = (authority.endpoint("a.test"), authority.endpoint("b.test"));
    let (address_a, address_b) = (at_a.local_addr().unwrap(), at_b.local_addr().unwrap());
    let link = ModelHost::new("a.test", 1).renewal(50);
    let long = ModelHost::grown("a.test", 1, std::slice::from_ref(&link));
    let a = Home::start(&authority, long, at_a, &[("*.test", address_b)]).await;
    let b = Home::start(&authority, ModelHost::new("b.test", 2), at_b, &[("*.test", address_a)]).await;
    a.send("b.test", 1..=5);
    b.host.until(&a.host.genesis(), |store| store.effects == accepted(1..=5)).await;
    a.host.until(&b.host.genesis(), |store| store.done == 5).await;
    Met { authority, a, b, link }
}

/// Ends a home and starts it with another host, at the same address.
async fn again(home: Home, authority: &Authority, host: Arc<ModelHost>, other: &Home) -> Home {
    let endpoint = home.endpoint.clone();
    home.federation.stop().await;
    drop(home);
    let address = other.endpoint.local_addr().unwrap();
    Home::start(authority, host, endpoint, &[("*.test", address)]).await
}

async fn handed(host: &ModelHost) -> Vec<pb::Link> {
    let mut adopted = host.adopted.subscribe();
    let there = timeout(Duration::from_secs(20), adopted.wait_for(|links| !links.is_empty()));
    there.await.expect("nothing was handed over").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_home_that_dials_is_handed_the_links_it_lost() {
    let Met { authority, a, b, link } = met().await;
    let a = again(a, &authority, ModelHost::new("a.test", 1), &b).await;
    a.send("b.test", 6..=8);
    let links = handed(&a.host).await;
    assert_eq!(links, [link]);
    // With what it was handed and a new incarnation behind it, it is the home that the peer knows.
    let healed = ModelHost::grown("a.test", 1, &links);
    let healed = ModelHost::grown("a.test", 1, &[&links[..], &[healed.renewal(51)]].concat());
    let a = again(a, &authority, healed, &b).await;
    a.send("b.test", 6..=8);
    b.host.until(&a.host.genesis(), |store| store.effects == accepted(1..=8)).await;
    a.federation.stop().await;
    b.federation.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_home_that_is_dialled_is_handed_the_links_it_lost_and_stops() {
    let Met { authority, a, b, link } = met().await;
    let a = again(a, &authority, ModelHost::new("a.test", 1), &b).await;
    b.send("a.test", 101..=105);
    assert_eq!(handed(&a.host).await, [link]);
    b.host.until_state(&domain("a.test"), PeerState::Unreachable).await;
    assert!(b.host.with(&a.host.genesis(), |store| store.done) == 0, "the old copy took nothing");
    assert!(b.host.adopted.borrow().is_empty());
    a.federation.stop().await;
    b.federation.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_of_a_chain_on_record_is_refused_and_not_learnt() {
    let Met { authority, a, b, link } = met().await;
    let genesis = a.host.genesis();
    let forked = ModelHost::new("a.test", 1);
    let forked = ModelHost::grown("a.test", 1, &[forked.renewal(60)]);
    let a = again(a, &authority, forked, &b).await;
    b.send("a.test", 101..=105);
    b.host.until_state(&domain("a.test"), PeerState::Unreachable).await;
    b.federation.retry(&domain("a.test")).await;
    let asked = pb::Resolve { address: "x@a.test".to_owned(), ..Default::default() };
    let refusal = b.federation.resolve(None, &domain("a.test"), asked).await.unwrap_err();
    assert_eq!(refusal.code, Code::PEER_UNREACHABLE);
    let record = b.host.records.lock().unwrap().get(&(domain("a.test"), Some(genesis))).cloned().unwrap();
    assert_eq!(record.links.last(), Some(&link));
    assert!(a.host.adopted.borrow().is_empty(), "what does not extend its chain is nothing to it");
    a.federation.stop().await;
    b.federation.stop().await;
}
