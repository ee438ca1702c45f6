//! The steps before the crash. Each does something, waits for what must come of it, and checks it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidings_client::{Client, MessageId, Standing, State};
use tokio::sync::oneshot;

use crate::person::{PATIENCE, Person};
use crate::words::{Words, now};
use crate::world::World;

/// A time for the table.
pub(crate) type Figures = Vec<(&'static str, Duration)>;

/// Starts both homeservers.
pub(crate) async fn start(words: &Words, world: &mut World) -> anyhow::Result<()> {
    for home in world.start().await? {
        let pid = home.pid().context("a homeserver that was started has a process")?;
        words.tell(
            home.domain,
            &format!("process {pid} listens at {} (UDP), SQLite in its folder", home.address),
        );
    }
    Ok(())
}

/// Makes both accounts.
pub(crate) async fn register(words: &Words, world: &World) -> anyhow::Result<(Person, Person)> {
    let mut people = Vec::new();
    for (name, home) in [("Alice", &world.a), ("Bob", &world.b)] {
        let address = format!("{}@{}", name.to_lowercase(), home.domain);
        let begun = now();
        let person = Person::register(name, &address, home.device(&name.to_lowercase())?).await?;
        let took = now().duration_since(begun);
        let recovery = person.client.recovery_code().await?;
        ensure!(recovery.is_some_and(|code| !code.is_empty()), "{name} has no recovery code");
        let account: String = person.client.account().to_string().chars().take(12).collect();
        words.timed(name, &format!("is {address}, account {account}…"), took);
        people.push(person);
    }
    let (bob, alice) = (people.pop(), people.pop());
    let (alice, bob) = alice.zip(bob).context("both registered")?;
    ensure!(alice.client.account() != bob.client.account(), "both have the same account");
    Ok((alice, bob))
}

/// Alice finds Bob's account by his address.
pub(crate) async fn resolve(words: &Words, alice: &Person, bob: &Person) -> anyhow::Result<Duration> {
    let begun = now();
    let asked = tokio::time::timeout(PATIENCE, alice.client.resolve(bob.client.address()));
    let contact = asked.await.context("Alice waited for the answer")??;
    let took = now().duration_since(begun);
    ensure!(contact.account == bob.client.account(), "the answer is another account than Bob's");
    ensure!(contact.address == *bob.client.address(), "the answer names another address");
    words.timed("Alice", &format!("asks for {} and verifies his chain", contact.address), took);
    words.verified("the account is the one Bob made");
    Ok(took)
}

/// Alice writes to Bob, who does not know her.
pub(crate) async fn first_message(
    words: &Words,
    alice: &mut Person,
    bob: &mut Person,
) -> anyhow::Result<(MessageId, Figures)> {
    const TEXT: &str = "Hello Bob, this is Alice. May I write to you?";
    let begun = now();
    let id = alice.client.send_text(bob.client.account(), TEXT, None).await?;
    words.tell("Alice", &format!("writes: {TEXT}"));
    alice.reached(id, State::AcceptedByHome).await?;
    let home = now().duration_since(begun);
    words.timed("Alice", "sees: accepted by her home (durable there)", home);
    alice.reached(id, State::AcceptedByPeer).await?;
    let peer = now().duration_since(begun);
    words.timed("Alice", "sees: accepted by Bob's home (durable there)", peer);
    let got = bob.gets(id).await?;
    let arrived = now().duration_since(begun);
    words.timed("Bob", &format!("gets a request from {}", alice.client.address()), arrived);
    ensure!(got.text == TEXT, "Bob reads something else than Alice wrote");
    ensure!(got.sender == alice.client.account(), "Bob sees another sender");
    let contact =
        bob.client.store().contact(alice.client.account()).await?.context("Bob does not know Alice")?;
    ensure!(contact.standing == Standing::Undecided, "Bob was not asked about a stranger");
    ensure!(contact.address == *alice.client.address(), "Bob sees another address");
    let seen = alice.client.store().message(id).await?.context("Alice lost her message")?;
    ensure!(seen.state < State::Delivered, "a stranger is told what arrived");
    words.verified("same text, a request, and Alice is told nothing about his devices");
    Ok((id, vec![("first message: accepted by home", home), ("first message: accepted at the peer", peer)]))
}

/// Both see the same safety number.
pub(crate) async fn compare(words: &Words, alice: &Person, bob: &Person) -> anyhow::Result<()> {
    let hers = alice.client.safety_number(bob.client.account());
    let his = bob.client.safety_number(alice.client.account());
    for (name, number) in [("Alice", &hers), ("Bob", &his)] {
        let groups: Vec<&str> = number.split_whitespace().collect();
        ensure!(groups.len() == 12, "{name} does not see twelve groups");
        let (first, second) = groups.split_at(6);
        words.tell(name, &first.join(" "));
        words.tell("", &second.join(" "));
    }
    ensure!(hers == his, "the safety numbers differ");
    alice.client.set_verified(bob.client.account(), true).await?;
    bob.client.set_verified(alice.client.account(), true).await?;
    words.verified("equal; both mark each other as verified");
    Ok(())
}

/// Bob takes Alice as a contact and reads.
pub(crate) async fn accept(
    words: &Words,
    alice: &mut Person,
    bob: &Person,
    first: MessageId,
) -> anyhow::Result<Figures> {
    let begun = now();
    bob.client.accept(alice.client.account()).await?;
    words.timed("Bob", "accepts Alice", now().duration_since(begun));
    alice.reached(first, State::Delivered).await?;
    let delivered = now().duration_since(begun);
    words.timed("Alice", "sees: delivered", delivered);
    let begun = now();
    bob.client.mark_read(alice.client.account()).await?;
    alice.reached(first, State::Read).await?;
    let read = now().duration_since(begun);
    words.timed("Alice", "sees: read, after Bob has read it", read);
    let contact =
        bob.client.store().contact(alice.client.account()).await?.context("Bob does not know Alice")?;
    ensure!(contact.standing == Standing::Accepted && contact.verified, "Bob's decision was not kept");
    words.verified("the receipts came only with the acceptance");
    Ok(vec![("acceptance until Alice sees delivered", delivered), ("reading until Alice sees read", read)])
}

/// Bob answers the first message.
pub(crate) async fn reply(
    words: &Words,
    alice: &mut Person,
    bob: &mut Person,
    first: MessageId,
) -> anyhow::Result<()> {
    const TEXT: &str = "Of course.";
    let begun = now();
    let id = bob.client.send_text(alice.client.account(), TEXT, Some(first)).await?;
    let got = alice.gets(id).await?;
    words.timed("Alice", &format!("gets: {TEXT}"), now().duration_since(begun));
    ensure!(got.text == TEXT && got.sender == bob.client.account(), "Alice got something else");
    ensure!(got.reply_to == Some(first), "the reply names another message");
    let quoted = alice.client.store().message(first).await?.context("the quoted message is not there")?;
    words.tell("", &format!("quoting: {}", quoted.text));
    bob.reached(id, State::Delivered).await?;
    alice.client.mark_read(bob.client.account()).await?;
    bob.reached(id, State::Read).await?;
    words.verified("the reply names the message it answers; Bob sees: read");
    Ok(())
}

/// A message with all its states.
pub(crate) async fn message(words: &Words, alice: &mut Person, bob: &mut Person) -> anyhow::Result<Figures> {
    const TEXT: &str = "Shall we meet at noon?";
    let begun = now();
    let id = alice.client.send_text(bob.client.account(), TEXT, None).await?;
    words.tell("Alice", &format!("writes: {TEXT}"));
    let states = [
        (State::AcceptedByHome, "sees: accepted by her home", "message: accepted by home"),
        (State::AcceptedByPeer, "sees: accepted at the peer", "message: accepted at the peer"),
        (State::Delivered, "sees: delivered", "message: delivered, and Alice knows"),
    ];
    let mut figures = Vec::new();
    for (state, what, label) in states {
        alice.reached(id, state).await?;
        figures.push((label, now().duration_since(begun)));
        words.timed("Alice", what, now().duration_since(begun));
    }
    let got = bob.gets(id).await?;
    ensure!(got.text == TEXT, "Bob reads something else than Alice wrote");
    let begun = now();
    bob.client.mark_read(alice.client.account()).await?;
    alice.reached(id, State::Read).await?;
    figures.push(("message: read, after Bob has read it", now().duration_since(begun)));
    words.timed("Alice", "sees: read, after Bob has read it", now().duration_since(begun));
    words.verified("queued, accepted, at the peer, delivered, read: in this order");
    Ok(figures)
}

/// Alice's laptop joins by a code.
pub(crate) async fn link(words: &Words, alice: &Person) -> anyhow::Result<(Person, Figures)> {
    let begun = now();
    let linking = alice.client.link_new_device().await?;
    let code = linking.code();
    let shown: String = code.chars().take(8).collect();
    words.tell(
        "Alice",
        &format!("her first device shows the code {shown}…@{}", alice.client.address().domain()),
    );
    let mut options = alice.options.clone();
    options.store.set_extension("laptop");
    let (tell, told) = oneshot::channel();
    // Whoever compares waits for the digits or for the end of the joining.
    let joining =
        tidings_client::join(options.clone(), &code, move |digits| drop(tell.send(digits.to_owned())));
    let confirming = async {
        let pending = linking.wait().await?;
        let first = pending.digits().to_owned();
        let confirmed = pending.confirm().await?;
        anyhow::Ok((first, confirmed))
    };
    let both = async {
        let (joined, confirmed) = tokio::join!(Box::pin(joining), Box::pin(confirming));
        anyhow::Ok((joined?, confirmed?))
    };
    let linked =
        tokio::time::timeout(PATIENCE, both).await.context("the devices waited for each other")??;
    let (client, (first, device)) = linked;
    let second = told.await.context("the new device showed no digits")?;
    words.tell("Alice", &format!("first device shows {first}, second device shows {second}"));
    ensure!(first == second && first.len() == 6, "the digits differ");
    let laptop = Person::with("Laptop", client, options).await?;
    let took = now().duration_since(begun);
    ensure!(laptop.client.account() == alice.client.account(), "the laptop has another account");
    ensure!(laptop.client.device() == device, "another device was linked");
    let devices = alice.client.devices().await?;
    ensure!(devices.len() == 2 && devices.contains(&device), "the account's chain names other devices");
    words.timed("Laptop", "is on the account's chain, with keys of its own", took);
    words.verified("same digits, same account, two devices on the chain");
    Ok((laptop, vec![("linking a second device", took)]))
}

/// Everything reaches both of Alice's devices, whoever wrote it.
pub(crate) async fn both_get(
    words: &Words,
    alice: &mut Person,
    laptop: &mut Person,
    bob: &mut Person,
) -> anyhow::Result<()> {
    let (hers, his) = (alice.client.account(), bob.client.account());
    let begun = now();
    let id = bob.client.send_text(hers, "Do you get this twice?", None).await?;
    for device in [&mut *alice, &mut *laptop] {
        let got = device.gets(id).await?;
        ensure!(
            got.text == "Do you get this twice?" && got.sender == his,
            "{} got something else",
            device.name
        );
        words.timed(device.name, "gets Bob's message", now().duration_since(begun));
    }
    let begun = now();
    let id = alice.client.send_text(his, "Yes, on both.", None).await?;
    copy(words, laptop, id, "Yes, on both.", begun).await?;
    alice.reached(id, State::Delivered).await?;
    laptop
        .until("Bob's account", PATIENCE, async |client: &Client| Ok(client.store().contact(his).await?))
        .await?;
    let begun = now();
    let id = laptop.client.send_text(his, "And this is my laptop.", None).await?;
    copy(words, alice, id, "And this is my laptop.", begun).await?;
    let got = bob.gets(id).await?;
    ensure!(got.sender == hers && got.device == laptop.client.device(), "Bob sees another sender");
    words.timed("Bob", "gets what the laptop wrote, from Alice", now().duration_since(begun));
    words.verified("every message is on both devices, own ones as copies");
    Ok(())
}

async fn copy(
    words: &Words,
    device: &mut Person,
    id: MessageId,
    text: &str,
    begun: tokio::time::Instant,
) -> anyhow::Result<()> {
    let got = device.gets(id).await?;
    ensure!(got.text == text && got.sender == device.client.account(), "{}'s copy is another", device.name);
    words.timed(device.name, &format!("has a copy of: {text}"), now().duration_since(begun));
    Ok(())
}
