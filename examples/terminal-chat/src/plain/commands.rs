//! Lines in.

use tidings_client::{AccountId, Address, DeviceId, Message, MessageId, Status};
use tokio::sync::oneshot;

use super::output::{self, line};
use super::tracker::reply_number;
use super::{HELP, Plain};
use crate::settings::unescape;
use crate::worker::cause;

/// Messages that `/history` shows.
const HISTORY: u32 = 20;

/// Why a command was not carried out, for the line that says so.
struct Wrong(String);

impl From<tidings_client::Error> for Wrong {
    fn from(error: tidings_client::Error) -> Self {
        Self(cause(&error))
    }
}

impl From<tidings_client::StoreError> for Wrong {
    fn from(error: tidings_client::StoreError) -> Self {
        Self(cause(&error))
    }
}

impl From<anyhow::Error> for Wrong {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

impl From<&str> for Wrong {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Plain {
    /// Takes one line. True: the end.
    pub(super) async fn input(&mut self, read: &str) -> anyhow::Result<bool> {
        if read.is_empty() {
            return Ok(false);
        }
        let (command, rest) = match read.strip_prefix('/') {
            None => ("/send", read),
            Some(text) if text.starts_with('/') => ("/send", text),
            Some(_) => {
                read.split_once(' ').map_or((read, ""), |(command, rest)| (command, rest.trim_start()))
            }
        };
        let done = match command {
            "/quit" => return Ok(true),
            "/send" if read.starts_with("/send") => self.send(None, unescape(rest)).await,
            "/send" => self.send(None, rest.to_owned()).await,
            _ => self.command(command, rest).await,
        };
        if let Err(Wrong(reason)) = done {
            self.fail(command, &reason)?;
        }
        Ok(false)
    }

    async fn command(&mut self, command: &str, rest: &str) -> Result<(), Wrong> {
        match command {
            "/to" => self.to(rest).await?,
            "/reply" => self.reply(rest).await?,
            "/history" => self.history(rest).await?,
            "/contacts" => self.contacts().await?,
            "/devices" => self.devices().await?,
            "/safety" => self.safety().await?,
            "/status" => self.status()?,
            "/link" => self.link().await?,
            "/confirm" | "/cancel" => self.confirm(command == "/confirm")?,
            "/help" => {
                for help in HELP.lines() {
                    line(&["help", help])?;
                }
            }
            "/remove" => {
                let device = self.device(rest).await?;
                self.connected().await?;
                self.client.remove_device(device).await?;
                line(&["done", command])?;
            }
            "/verify" => {
                self.client.set_verified(self.current()?, true).await?;
                line(&["done", command])?;
            }
            "/read" | "/accept" | "/dismiss" | "/block" | "/unblock" => {
                let account = self.current()?;
                self.connected().await?;
                match command {
                    "/read" => self.client.mark_read(account).await?,
                    "/accept" => self.client.accept(account).await?,
                    "/dismiss" => self.client.dismiss(account).await?,
                    "/block" => self.client.block(account).await?,
                    _ => self.client.unblock(account).await?,
                }
                line(&["done", command])?;
            }
            _ => return Err("no such command; /help lists them".into()),
        }
        Ok(())
    }

    fn current(&self) -> Result<AccountId, Wrong> {
        self.current.ok_or_else(|| "say /to ADDRESS first".into())
    }

    /// Waits for a connection as long as the deadline allows.
    async fn connected(&self) -> Result<(), Wrong> {
        let mut status = self.client.status();
        let decided = status.wait_for(|status| *status != Status::Waiting);
        match tokio::time::timeout(self.deadline, decided).await {
            Ok(Ok(status)) if *status == Status::Connected => Ok(()),
            Ok(_) => Err("the device was stopped".into()),
            Err(_) => Err("no connection within the deadline".into()),
        }
    }

    async fn to(&mut self, rest: &str) -> Result<(), Wrong> {
        let address: Address = rest.trim().parse().map_err(|error| Wrong(format!("{error}")))?;
        let contact = match self.client.store().contact_at(&address).await? {
            Some(contact) => contact,
            None => {
                self.connected().await?;
                self.client.resolve(&address).await?
            }
        };
        self.current = Some(contact.account);
        let unread = self.client.store().unread_count(contact.account).await?;
        Ok(output::contact("to", &contact, unread)?)
    }

    async fn send(&mut self, reply_to: Option<MessageId>, text: String) -> Result<(), Wrong> {
        let to = self.current()?;
        let id = self.client.send_text(to, text, reply_to).await?;
        let stored = self.client.store().message(id).await?.ok_or("the message was not stored")?;
        // It may be on its way already: what is printed first is that it was queued.
        let queued = Message { state: tidings_client::State::Queued, ..stored };
        self.tracker.track(&self.client, &queued);
        let address = super::tracker::name(&self.client, to).await?;
        let reply_to = reply_number(&self.client, &queued).await?;
        Ok(line(&["queued", &queued.seq.to_string(), &address, &reply_to, &queued.text])?)
    }

    async fn reply(&mut self, rest: &str) -> Result<(), Wrong> {
        let (number, text) = rest.split_once(' ').ok_or("/reply N TEXT")?;
        let number: u64 = number.parse().map_err(|_| "/reply N TEXT: N is a message's number")?;
        let before = number.saturating_add(1);
        let found = self.client.store().messages(self.current()?, before, 1).await?.pop();
        let answered = found.filter(|message| message.seq == number);
        let answered = answered.ok_or("there is no such message in this conversation")?;
        self.send(Some(answered.id), unescape(text)).await
    }

    async fn history(&self, rest: &str) -> Result<(), Wrong> {
        let account = self.current()?;
        let count = match rest.trim() {
            "" => HISTORY,
            count => count.parse().map_err(|_| "/history N: N is a number")?,
        };
        let address = super::tracker::name(&self.client, account).await?;
        for message in self.client.store().messages(account, u64::MAX, count).await? {
            let reply_to = reply_number(&self.client, &message).await?;
            output::history(&message, &address, &reply_to)?;
        }
        Ok(line(&["done", "/history"])?)
    }

    async fn contacts(&self) -> Result<(), Wrong> {
        for contact in self.client.store().contacts().await? {
            if contact.account != self.client.account() {
                let unread = self.client.store().unread_count(contact.account).await?;
                output::contact("contact", &contact, unread)?;
            }
        }
        Ok(line(&["done", "/contacts"])?)
    }

    async fn devices(&self) -> Result<(), Wrong> {
        for device in self.client.devices().await? {
            let which = if device == self.client.device() { "this" } else { "other" };
            line(&["device", &device.to_string(), which])?;
        }
        Ok(line(&["done", "/devices"])?)
    }

    /// A device by the beginning of its id.
    async fn device(&self, start: &str) -> Result<DeviceId, Wrong> {
        let start = start.trim();
        let devices = self.client.devices().await?;
        let mut found =
            devices.iter().filter(|device| !start.is_empty() && device.to_string().starts_with(start));
        match (found.next(), found.next()) {
            (Some(device), _) if *device == self.client.device() => {
                Err("this device cannot take itself off the list".into())
            }
            (Some(device), None) => Ok(*device),
            (None, _) => Err("no device of the account has this id".into()),
            _ => Err("several devices have an id that begins like this".into()),
        }
    }

    async fn safety(&self) -> Result<(), Wrong> {
        let account = self.current()?;
        let address = super::tracker::name(&self.client, account).await?;
        Ok(line(&["safety", &address, &self.client.safety_number(account)])?)
    }

    fn status(&self) -> Result<(), Wrong> {
        let link = match *self.client.status().borrow() {
            Status::Waiting => "waiting",
            Status::Connected => "connected",
            Status::Halted => "halted",
        };
        Ok(line(&["status", link, &self.tracker.waiting().to_string()])?)
    }

    /// Begins to link a device; what comes of it is printed when it comes.
    async fn link(&mut self) -> Result<(), Wrong> {
        if self.confirm.is_some() {
            return Err("a device is being linked already; /cancel it".into());
        }
        self.connected().await?;
        let linking = self.client.link_new_device().await?;
        line(&["link-code", &linking.code()])?;
        let (confirm, confirmed) = oneshot::channel();
        self.confirm = Some(confirm);
        let links = self.links.clone();
        self.tasks.spawn(async move {
            // Whoever would print it may be gone: the program is ending then.
            let said = |said| async { drop(links.send(said).await) };
            let mut confirmed = confirmed;
            let pending = tokio::select! {
                pending = linking.wait() => pending,
                _ = &mut confirmed => return said(Err("given up".to_owned())).await,
            };
            let pending = match pending {
                Ok(pending) => pending,
                Err(error) => return said(Err(cause(&error))).await,
            };
            said(Ok(format!("link-digits\t{}", pending.digits()))).await;
            if confirmed.await != Ok(true) {
                return said(Err("given up".to_owned())).await;
            }
            match pending.confirm().await {
                Ok(device) => said(Ok(format!("linked\t{device}"))).await,
                Err(error) => said(Err(cause(&error))).await,
            }
        });
        Ok(())
    }

    fn confirm(&mut self, yes: bool) -> Result<(), Wrong> {
        let confirm = self.confirm.take().ok_or("no device is being linked")?;
        confirm.send(yes).map_err(|_| "the linking has ended".into())
    }
}
