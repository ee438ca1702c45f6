//! A group as a client sees it: every entry verified, in order.

use bytes::Bytes;
use tidings_proto::chain::group::{Chains, GroupChange, GroupState, NewGroup, Policy, ServerRef, genesis};
use tidings_proto::codec::Frame;
use tidings_proto::group_log::{GroupEntry, GroupHead, GroupPosition};
use tidings_proto::id::GroupId;
use tidings_proto::pb;

use crate::client::{Client, Person, accepted, refused};
use crate::world::World;

/// What one member has of a group.
pub(crate) struct Room {
    pub state: GroupState,
    pub position: GroupPosition,
    /// What was before each entry that was read.
    past: Vec<(GroupPosition, GroupState)>,
    chains: Chains,
    /// The highest number known to be stable, and what all have.
    pub stable: u64,
    pub all_delivered: u64,
    pub all_read: u64,
    number: u64,
}

/// The request that begins a group of this person's.
pub(crate) fn create(person: &Person, hub: ServerRef, salt: u8) -> pb::GroupCreate {
    let new = NewGroup {
        salt: [salt; 16],
        address: person.address.clone(),
        hub,
        policy: Policy::default(),
        profile: Bytes::new(),
    };
    pb::GroupCreate { links: vec![genesis(&person.author(), &new, &person.device)] }
}

impl Room {
    /// Creates a group with the person's home as hub, and reads its first entry.
    pub(crate) async fn create(person: &Person, client: &mut Client, home: &World, salt: u8) -> Self {
        let request = create(person, home.server(), salt);
        let made: pb::GroupAppended = client.ask(&request, false).await.expect("a group");
        let again: pb::GroupAppended = client.ask(&request, false).await.expect("the same group");
        assert_eq!(made, again, "a lost answer is given again");
        let page = fetch(client, &made.group, None).await;
        Self::from_page(&page)
    }

    /// Fetches a group from a server and verifies it from its genesis.
    pub(crate) async fn fetch(client: &mut Client, group: &Bytes, server: Option<&ServerRef>) -> Self {
        Self::from_page(&fetch(client, group, server).await)
    }

    fn from_page(page: &pb::GroupPage) -> Self {
        assert!(page.state.is_empty() && !page.more, "the genesis is there, and all of it");
        let first = page.records.first().expect("a genesis");
        let mut chains = Chains::new();
        add(&mut chains, first);
        let entry = GroupEntry::parse(&first.entry).expect("an entry");
        let state = GroupState::genesis(entry.link().expect("a link"), &chains).expect("a good genesis");
        let position = GroupPosition::START.after(1, &first.entry).expect("the first");
        let mut room = Self {
            state,
            position,
            past: Vec::new(),
            chains,
            stable: 0,
            all_delivered: 0,
            all_read: 0,
            number: 0,
        };
        for record in page.records.iter().skip(1) {
            // Who is only invited gets the links alone: they follow from each other, the positions do not.
            add(&mut room.chains, record);
            let entry = GroupEntry::parse(&record.entry).expect("an entry");
            if let Some(link) = entry.link() {
                room.state = room.state.apply(link, &room.chains).expect("a good link");
            }
        }
        let head = page.head.as_ref().expect("a head");
        room.position = GroupHead::verify(head, &room.chains).expect("a good signature").position;
        room.take_head(head);
        room
    }

    pub(crate) fn id(&self) -> GroupId {
        self.state.group()
    }

    /// Verifies a record; gives its entry.
    pub(crate) fn take(&mut self, record: &pb::GroupRecord) -> GroupEntry {
        add(&mut self.chains, record);
        let (position, entry) = self.position.follow(&self.state, &record.entry).expect("the next entry");
        let before = self.state.clone();
        if let Some(link) = entry.link() {
            self.state = self.state.apply(link, &self.chains).expect("a good link");
        }
        self.past.push((std::mem::replace(&mut self.position, position), before));
        entry
    }

    /// A new term goes on from before the end: what was read from there on is void.
    fn rewound(&mut self, entry: &GroupEntry) {
        if entry.seq() > self.position.seq || entry.term() <= self.position.term {
            return;
        }
        while self.position.seq >= entry.seq() {
            (self.position, self.state) = self.past.pop().expect("only what was read here is undone");
        }
    }

    fn take_head(&mut self, head: &pb::SignedGroupHead) {
        let head = GroupHead::verify(head, &self.chains).expect("a good signature");
        assert!(head.is_of(&self.state), "of the hub");
        assert_eq!(head.position, self.position, "of what was read");
        assert!(head.stable >= self.stable, "stable never goes back");
        self.stable = head.stable;
    }

    /// The next entry of this group on the event stream; what is of the mailbox is passed over.
    pub(crate) async fn next(&mut self, client: &mut Client) -> GroupEntry {
        loop {
            match client.event().await {
                Frame::GroupEvent(event) if event.group == self.id().to_bytes() => {
                    let record = event.record.expect("a record");
                    let entry = GroupEntry::parse(&record.entry).expect("an entry");
                    self.rewound(&entry);
                    if entry.seq() > self.position.seq {
                        return self.take(&record);
                    }
                }
                Frame::GroupHeadEvent(event) => self.hear(&event),
                Frame::GroupGap(gap) => panic!("{gap:?}"),
                _ => {}
            }
        }
    }

    fn hear(&mut self, event: &pb::GroupHeadEvent) {
        let head = event.head.as_ref().expect("a head");
        if GroupHead::verify(head, &self.chains).is_ok_and(|head| head.position.seq < self.position.seq) {
            return;
        }
        self.take_head(head);
        self.all_delivered = event.all_delivered.max(self.all_delivered);
        self.all_read = event.all_read.max(self.all_read);
    }

    /// Reads until the signed head says so.
    pub(crate) async fn until(&mut self, client: &mut Client, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            match client.event().await {
                Frame::GroupEvent(event) if event.group == self.id().to_bytes() => {
                    drop(self.take(&event.record.expect("a record")));
                }
                Frame::GroupHeadEvent(event) => self.hear(&event),
                _ => {}
            }
        }
    }

    /// The next entry, which has to be a message; its ciphertext.
    pub(crate) async fn message(&mut self, client: &mut Client) -> Bytes {
        let entry = self.next(client).await;
        entry.post().unwrap_or_else(|| panic!("{entry:?}")).ciphertext.clone()
    }

    /// A link of this person on the state read so far.
    pub(crate) fn link(&self, person: &Person, change: &GroupChange) -> pb::GroupAppend {
        let link = self.state.link(Some(&person.author()), change, &[&person.device]);
        pb::GroupAppend { group: self.id().to_bytes(), link: Some(link), ..Default::default() }
    }

    /// Appends a link and reads up to it.
    pub(crate) async fn append(&mut self, person: &Person, client: &mut Client, change: &GroupChange) {
        let request = self.link(person, change);
        let appended: pb::GroupAppended = client.ask(&request, false).await.expect("appended");
        let seq = appended.place.expect("a place").seq;
        while self.position.seq < seq {
            self.next(client).await;
        }
        assert_eq!(self.state.head().to_bytes(), appended.head);
    }

    /// Accepts an invitation: `hub` is where the group is, for a home that does not have it.
    pub(crate) async fn accept(&mut self, person: &Person, client: &mut Client, hub: Option<&ServerRef>) {
        let accept = GroupChange::Accept(person.address.domain().clone());
        let request = pb::GroupAppend { hub: hub.map(ServerRef::to_pb), ..self.link(person, &accept) };
        let appended: pb::GroupAppended = client.ask(&request, false).await.expect("accepted");
        assert_eq!(appended.group, self.id().to_bytes());
        let entry = self.next(client).await;
        assert_eq!(entry.link(), request.link.as_ref(), "the first that comes is the own acceptance");
    }

    /// The next post of this person's first device.
    pub(crate) fn post(&mut self, counter: u64, text: &str) -> pb::Submit {
        self.number += 1;
        pb::Submit {
            counter,
            class: pb::Class::Content.into(),
            to_head: self.state.head().to_bytes(),
            to_head_number: self.state.number(),
            group: self.id().to_bytes(),
            group_number: self.number,
            payloads: vec![pb::Payload {
                device: Bytes::new(),
                kind: pb::PayloadKind::SenderKey.into(),
                ciphertext: Bytes::copy_from_slice(text.as_bytes()),
            }],
            commitment: vec![7; 32].into(),
            ..Default::default()
        }
    }

    /// The number of the next post, where a device goes on with less or more than the last.
    pub(crate) const fn next_number(&mut self, number: u64) {
        self.number = number - 1;
    }

    /// Posts, and gives what the home says.
    pub(crate) async fn say(&mut self, client: &mut Client, counter: u64, text: &str) -> pb::Accepted {
        let post = self.post(counter, text);
        accepted(&client.submit(&post).await)
    }

    /// Posts what is refused.
    pub(crate) async fn say_refused(&mut self, client: &mut Client, counter: u64, text: &str) -> pb::Failure {
        let post = self.post(counter, text);
        self.number -= 1;
        refused(&client.submit(&post).await)
    }

    /// Acknowledges all that was read.
    pub(crate) async fn acknowledge(&self, client: &mut Client) {
        let position = Some(self.position.to_pb());
        client.send_group_ack(&pb::GroupAck { group: self.id().to_bytes(), position }).await;
    }
}

fn add(chains: &mut Chains, record: &pb::GroupRecord) {
    for evidence in &record.evidence {
        chains.add(evidence).expect("good chains");
    }
}

async fn fetch(client: &mut Client, group: &Bytes, server: Option<&ServerRef>) -> pb::GroupPage {
    let mut request = pb::GroupFetch {
        group: group.clone(),
        server: server.map(ServerRef::to_pb),
        from_state: true,
        links_only: true,
        ..Default::default()
    };
    let mut whole: pb::GroupPage = client.ask(&request, false).await.expect("a page");
    while whole.more {
        let last = whole.records.last().expect("a record");
        request.after_seq = GroupEntry::parse(&last.entry).expect("an entry").seq();
        request.from_state = false;
        let page: pb::GroupPage = client.ask(&request, false).await.expect("a page");
        whole.records.extend(page.records);
        (whole.head, whole.more) = (page.head, page.more);
    }
    whole
}
