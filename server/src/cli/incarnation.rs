//! `tidings new-incarnation`.

use std::path::Path;

use tidings_proto::id::Incarnation;

use crate::config::Config;
use crate::store::{SqliteStore, Store as _};
use crate::{identity, node};

pub(super) async fn run(config: &Path) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    // Opened alone: a server that runs would go on in the old incarnation.
    let store = SqliteStore::open(&config.data).await?;
    identity::renew(&config.data, &config.domain, Incarnation(node::random()))?;
    store.close().await?;
    println!("{} begins a new incarnation with the next start.", config.domain);
    Ok(())
}
