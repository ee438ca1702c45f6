//! Two homes that run, with a person on each.

use tidings_proto::pb;

use crate::client::{Client, Person};
use crate::world::World;

/// Alice on one, Bob on the other.
pub(crate) struct Two {
    pub(crate) a: World,
    pub(crate) b: World,
    pub(crate) alice: Person,
    pub(crate) bob: Person,
}

impl Two {
    pub(crate) async fn start() -> Self {
        let (mut a, mut b) = World::pair();
        a.begin().await;
        b.begin().await;
        let (alice, bob) = (Person::new(&a.domain, "alice", 1), Person::new(&b.domain, "bob", 2));
        a.register(&alice, "").await.expect("registers");
        b.register(&bob, "").await.expect("registers");
        Self { a, b, alice, bob }
    }

    /// Both devices with event streams; Alice has asked for Bob's chain.
    pub(crate) async fn enter(&self) -> (Client, Client) {
        let (mut a, mut b) = (self.a.device(&self.alice).await, self.b.device(&self.bob).await);
        a.sync(None).await;
        b.sync(None).await;
        let resolve = pb::Resolve { address: self.bob.address.to_string(), ..Default::default() };
        let resolved: pb::Resolved = a.ask(&resolve, false).await.expect("resolves");
        assert_eq!(resolved.links, vec![self.bob.genesis.clone()]);
        (a, b)
    }

    pub(crate) async fn stop(self) {
        self.a.stop().await;
        self.b.stop().await;
    }

    /// As [`Self::enter`]; they have accepted each other.
    pub(crate) async fn enter_accepted(&self) -> (Client, Client) {
        let (mut a, mut b) = self.enter().await;
        b.decide(&self.alice, pb::Decision::Accept).await;
        a.decide(&self.bob, pb::Decision::Accept).await;
        (a, b)
    }
}
