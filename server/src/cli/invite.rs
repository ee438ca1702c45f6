//! `tidings invite`: a single-use registration token, also while the server runs.

use std::path::Path;

use tidings_proto::sign::sha256;

use crate::config::Config;
use crate::node;
use crate::store::{SqliteStore, Store as _, Writes};

pub(super) async fn run(config: &Path) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let token = hex::encode(node::random::<16>());
    let store = SqliteStore::beside(&config.data).await?;
    let writes = Writes {
        tokens: std::collections::BTreeMap::from([(sha256(token.as_bytes()), true)]),
        ..Writes::default()
    };
    store.commit(&writes).await?;
    store.close().await?;
    println!("{token}");
    Ok(())
}
