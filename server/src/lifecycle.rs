//! Soft and hard stop: the first signal drains, the second ends at once. SIGHUP reads the allow and deny lists again.

use std::path::Path;

use crate::config::Config;
use crate::node::Node;

/// Why serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By a signal.
    Asked,
    /// The server learnt that it lost state and has to begin again with what it was told.
    Again,
}

/// Serves until a signal, then drains; a second signal ends the draining.
///
/// # Errors
/// If signals cannot be listened for.
pub async fn run(node: Node, config: Option<&Path>) -> std::io::Result<End> {
    let end = tokio::select! {
        ended = signal() => ended.map(|()| End::Asked)?,
        failed = reloads(&node, config) => failed.map(|()| End::Asked)?,
        () = node.ended() => End::Again,
    };
    tracing::info!("stopping: connections are told to go away; a second signal ends at once");
    tokio::select! {
        () = node.stop() => tracing::info!("stopped"),
        second = signal() => {
            second?;
            tracing::warn!("stopped hard; what was accepted is durable");
            return Ok(End::Asked);
        }
    }
    Ok(end)
}

/// Reads the allow and deny lists again at each SIGHUP; mistakes leave the old ones in force.
#[cfg(unix)]
async fn reloads(node: &Node, config: Option<&Path>) -> std::io::Result<()> {
    let mut hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    loop {
        hangups.recv().await;
        match config.map(Config::load) {
            None => tracing::info!("SIGHUP: there are no settings to read again"),
            Some(Ok(config)) => {
                node.shared().reload(&config);
                tracing::info!(
                    allowed = config.allow.len(),
                    denied = config.deny.len(),
                    "SIGHUP: allow and deny lists were read again"
                );
            }
            Some(Err(error)) => {
                tracing::error!(%error, "SIGHUP: the settings have a mistake, the old lists stay")
            }
        }
    }
}

#[cfg(not(unix))]
async fn reloads(_node: &Node, _config: Option<&Path>) -> std::io::Result<()> {
    std::future::pending().await
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
