//! The Tidings client SDK: everything a device does, for whoever writes an app.
//!
//! A [`Client`] is one device of one account. It keeps its state in one SQLite file, connects to its
//! home by itself and again after every loss, encrypts with Signal's protocol, and never loses what it
//! was given: what is to be sent waits in the file, what came is in the file before the home may
//! forget it. The protocol's text is in the repository's `spec/` folder.
//!
//! ```no_run
//! use tidings_client::{Address, Client, Event, Options, Trust};
//!
//! # async fn example() -> Result<(), tidings_client::Error> {
//! let options = Options { store: "alice.device".into(), server: None, trust: Trust::Web };
//! let alice = Client::register(options, "alice@a.example".parse().unwrap(), None).await?;
//! println!("keep these words safe: {}", alice.recovery_code().await?.unwrap_or_default());
//!
//! let mut events = alice.events();
//! let bob = alice.resolve(&"bob@b.example".parse().unwrap()).await?;
//! println!("compare with Bob: {}", alice.safety_number(bob.account));
//! let id = alice.send_text(bob.account, "Hello!", None).await?;
//! while let Ok(event) = events.recv().await {
//!     match event {
//!         Event::Accepted { id: accepted, .. } if accepted == id => println!("durable at home"),
//!         Event::Progress { state, .. } => println!("it is {state:?}"),
//!         Event::Message(message) => println!("{}: {}", message.sender, message.text),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//! What an app is made of:
//!
//! | for | there is |
//! |---|---|
//! | coming into being | [`Client::register`], [`join`] with a code of [`Client::link_new_device`], [`Client::open`] |
//! | a list of conversations | [`store::Store::conversations`], with the newest message and what is unread |
//! | a conversation | [`store::Store::messages`] by pages, [`store::Store::message`], [`Client::send_text`], [`Client::mark_read`], [`Client::set_lifetime`] |
//! | people | [`Client::resolve`], [`store::Store::contacts`], [`store::Store::contact_at`], [`Client::accept`], [`Client::dismiss`], [`Client::block`] |
//! | trust | [`Client::safety_number`], [`Client::safety_qr`], [`Client::check_safety_qr`], [`Client::set_verified`] |
//! | devices | [`Client::devices`], [`Client::devices_of`], [`Client::remove_device`] |
//! | groups | [`Client::create_group`], [`Client::invite`], [`Client::accept_invitation`], [`Client::post`], [`store::Store::groups`], [`store::Store::posts`], [`store::Store::group_members`] |
//! | the connection | [`Client::status`], [`Client::events`], [`Client::reconnect`], [`Client::shutdown`] |
//!
//! A stranger's message is a request: its contact is [`Standing::Undecided`] until the user decides, and the stranger
//! learns nothing before. A message's [`State`] says how far it got, and its `reason` why it waits or failed.
#![warn(missing_docs)]

mod chains;
mod client;
pub mod crypto;
mod engine;
mod error;
mod event;
mod groups;
mod home;
mod letter;
pub mod link_code;
mod linking;
mod me;
mod net;
mod options;
mod prekeys;
mod recovery;
pub mod store;
mod verify;

pub use client::{Client, TEXT_BYTES_MAX};
pub use engine::{HomeSigner, MemberMark, Status};
pub use error::{Error, StoreError};
pub use event::{Change, Event};
pub use groups::NewPost;
pub use linking::{Linking, Pending, join};
pub use options::{Options, Trust};
pub use recovery::recover;
pub use store::accounts::{Contact, Standing};
pub use store::groups::posts::{Place, Post, PostState};
pub use store::groups::{Group, GroupMember, GroupStatus, Invitation};
pub use store::messages::{Conversation, Message, State};
pub use tidings_proto::chain::group::{Policy, Rank, ServerRef, ServerSigner};
pub use tidings_proto::id::{AccountId, DeviceId, GroupId, MessageId};
pub use tidings_proto::name::{Address, Domain};
