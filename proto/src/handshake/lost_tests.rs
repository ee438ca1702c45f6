//! A side whose server chain lacks links that the other holds (CHN-026).

use super::*;

/// The chain of a.example or b.example after so many new incarnations.
fn grown(name: &str, n: u8, steps: u8) -> (Verified<ServerState>, Vec<pb::Link>) {
    let (mut chain, mut links) = (server_chain(name, n), server_links(name, n));
    for step in 1..=steps {
        let fresh = Incarnation([&[step][..], &[0xff; 15]].concat().try_into().unwrap());
        links.push(chain.link(&ServerChange::NewIncarnation(fresh), &[&seed(n + 1)]));
        chain = Verified::verify(&links).unwrap();
    }
    (chain, links)
}

#[test]
fn a_server_that_lost_links_of_its_chain_is_handed_them() {
    let (held, links) = grown("a.example", 10, 3);
    let opener = OpenerConfig { server: Some(held.clone()), server_links: links.clone(), ..opener() };
    let (role, refusal) = run(opener, acceptor(), found()).expect_err("has to be refused");
    assert_eq!((role, refusal.code), (Role::Opener, Code::WRONG_SERVER));
    assert_eq!(refusal.links, links[1..]);
    assert_eq!(refusal.head, held.head().to_bytes());
    // It arrives as it left, and makes the old copy whole.
    let told = Refusal::from_pb(&refusal.to_pb());
    let mut restored = server_chain("a.example", 10);
    restored.extend(&told.links).unwrap();
    assert_eq!(restored, held);

    let (opener, acceptor, _) = peer();
    let (held, links) = grown("b.example", 20, 2);
    let found = Found::Peer { held: Some(Box::new(held)), links: links.clone(), nonce_proof: false };
    let (role, refusal) = run(opener, acceptor, found).expect_err("has to be refused");
    assert_eq!((role, refusal.code), (Role::Acceptor, Code::WRONG_SERVER));
    assert_eq!(refusal.links, links[1..]);
}

#[test]
fn a_server_with_a_fork_of_its_chain_is_handed_the_other_branch() {
    let (held, links) = grown("a.example", 10, 2);
    let opener = OpenerConfig { server: Some(held), server_links: links.clone(), ..opener() };
    let base = server_chain("a.example", 10);
    let mut forked = acceptor();
    forked.links.push(base.link(&ServerChange::NewIncarnation(Incarnation([99; 16])), &[&seed(11)]));
    forked.chain = Verified::verify(&forked.links).unwrap();
    let (_, refusal) = run(opener, forked, found()).expect_err("has to be refused");
    assert_eq!((refusal.code, refusal.links), (Code::WRONG_SERVER, links[1..].to_vec()));
}

#[test]
fn what_is_handed_over_fits_the_smallest_frames_and_other_refusals_carry_no_links() {
    let (held, links) = grown("a.example", 10, 200);
    let opener = OpenerConfig { server: Some(held), server_links: links.clone(), ..opener() };
    let (_, refusal) = run(opener, acceptor(), found()).expect_err("has to be refused");
    let frame = codec::to_raw(&refusal.to_pb());
    assert!(frame.payload.len() <= 16_384 && refusal.links.len() > 20);
    assert!(links[1..].starts_with(&refusal.links), "in order, without a gap");
    let other = pb::Failure { code: Code::INTERNAL.0, ..refusal.to_pb() };
    assert!(Refusal::from_pb(&other).links.is_empty());
}
