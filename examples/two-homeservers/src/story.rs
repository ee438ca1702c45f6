//! The story: its steps in order, and the figures for the table at its end. Each step is in `act` or `crash`.

use std::time::Duration;

use crate::person::Person;
use crate::words::{Words, now, short};
use crate::world::World;
use crate::{act, crash, group, succession};

/// The people, as they come in.
#[derive(Default)]
pub(crate) struct Cast {
    pub(crate) alice: Option<Person>,
    pub(crate) laptop: Option<Person>,
    pub(crate) bob: Option<Person>,
    /// Carol, Dave and Erin, who come for the group.
    pub(crate) others: Option<[Person; 3]>,
}

/// The story as it is told.
pub(crate) struct Story<'a> {
    words: &'a Words,
    cast: Cast,
    step: &'static str,
    steps: usize,
    rows: Vec<(String, String)>,
}

impl<'a> Story<'a> {
    pub(crate) fn new(words: &'a Words) -> Self {
        Self { words, cast: Cast::default(), step: "beginning", steps: 0, rows: Vec::new() }
    }

    /// The step that was begun last.
    pub(crate) fn step(&self) -> &'static str {
        self.step
    }

    fn begin(&mut self, title: &'static str) {
        self.step = title;
        self.steps += 1;
        self.words.step(self.steps, title);
    }

    fn figure(&mut self, label: &str, value: impl Into<String>) {
        self.rows.push((label.to_owned(), value.into()));
    }

    fn times(&mut self, figures: Vec<(&'static str, Duration)>) {
        for (label, time) in figures {
            self.figure(label, short(time));
        }
    }

    /// Tells everything; the first step that is not verified ends it.
    pub(crate) async fn tell(&mut self, world: &mut World) -> anyhow::Result<()> {
        let begun = now();
        let words = self.words;
        self.begin("Two homeservers start");
        act::start(words, world).await?;
        self.begin("Alice and Bob register");
        let (alice, bob) = act::register(words, world).await?;
        self.cast = Cast { alice: Some(alice), bob: Some(bob), ..Cast::default() };
        self.begin("Alice looks Bob up");
        let (alice, bob) = self.two()?;
        let found = act::resolve(words, alice, bob).await?;
        self.figure("Alice finds Bob's account", short(found));
        self.tell_messages().await?;
        self.begin("Alice links a second device");
        let linked = self.linked().await?;
        self.times(linked);
        self.begin("Bob's homeserver is killed in the middle of 200 messages");
        let (Some(alice), Some(laptop), Some(bob)) =
            (self.cast.alice.as_mut(), self.cast.laptop.as_mut(), self.cast.bob.as_mut())
        else {
            anyhow::bail!("somebody is missing");
        };
        let figures = crash::run(words, world, crash::Cast { alice, laptop, bob }).await?;
        self.rows.extend(figures);
        self.tell_group(world).await?;
        self.figure("the whole story", short(now().duration_since(begun)));
        words.table(&self.rows);
        Ok(())
    }

    async fn tell_messages(&mut self) -> anyhow::Result<()> {
        let words = self.words;
        self.begin("The first message, from a stranger");
        let (alice, bob) = self.two()?;
        let (first, figures) = act::first_message(words, alice, bob).await?;
        self.times(figures);
        self.begin("Both compare the safety number");
        let (alice, bob) = self.two()?;
        act::compare(words, alice, bob).await?;
        self.begin("Bob accepts and reads");
        let (alice, bob) = self.two()?;
        let figures = act::accept(words, alice, bob, first).await?;
        self.times(figures);
        self.begin("Bob replies");
        let (alice, bob) = self.two()?;
        act::reply(words, alice, bob, first).await?;
        self.begin("A message between contacts, as the sender sees it");
        let (alice, bob) = self.two()?;
        let figures = act::message(words, alice, bob).await?;
        self.times(figures);
        Ok(())
    }

    async fn tell_group(&mut self, world: &mut World) -> anyhow::Result<()> {
        let words = self.words;
        self.begin("A third homeserver, with Carol");
        self.cast.others = Some(group::arrive(words, world).await?);
        self.begin("Carol makes a group over three domains");
        let (garden, figures) = group::create(words, &mut self.members()?).await?;
        self.times(figures);
        self.begin("The group talks");
        let figures = group::talk(words, &mut self.members()?, garden).await?;
        self.times(figures);
        self.begin("A new name, an admin, one removed, one leaves");
        group::change(words, &mut self.members()?, garden).await?;
        self.begin("The group's hub is killed for good");
        let figures = succession::run(words, world, &mut self.members()?, garden).await?;
        self.rows.extend(figures);
        Ok(())
    }

    fn members(&mut self) -> anyhow::Result<group::Members<'_>> {
        let Cast { alice: Some(alice), laptop: Some(laptop), bob: Some(bob), others: Some(others) } =
            &mut self.cast
        else {
            anyhow::bail!("somebody is missing");
        };
        let [carol, dave, erin] = others;
        Ok(group::Members { alice, laptop, bob, carol, dave, erin })
    }

    async fn linked(&mut self) -> anyhow::Result<Vec<(&'static str, Duration)>> {
        let words = self.words;
        let (alice, bob) = self.two()?;
        let (mut laptop, figures) = act::link(words, alice).await?;
        act::both_get(words, alice, &mut laptop, bob).await?;
        self.cast.laptop = Some(laptop);
        Ok(figures)
    }

    fn two(&mut self) -> anyhow::Result<(&mut Person, &mut Person)> {
        self.cast
            .alice
            .as_mut()
            .zip(self.cast.bob.as_mut())
            .ok_or_else(|| anyhow::anyhow!("somebody is missing"))
    }

    /// Ends the devices.
    pub(crate) async fn close(self) {
        let first = [self.cast.alice, self.cast.laptop, self.cast.bob].into_iter().flatten();
        for person in first.chain(self.cast.others.into_iter().flatten()) {
            person.client.shutdown().await;
        }
    }
}
