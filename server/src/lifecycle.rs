//! Soft and hard stop: the first signal drains, the second ends at once. SIGHUP reads the allow and deny lists again.

use std::path::Path;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// Signals that are asked for before anything says that the server runs: whoever reads that line may send one at once,
/// and a signal that nobody listens for ends the process without draining it.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    hangup: Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// If signals cannot be listened for.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The server is asked to stop; until then the lists are read again at each SIGHUP.
    async fn stop_or_reload(&mut self, node: &Node, config: Option<&Path>) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => reload(node, config),
            }
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// None here.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    async fn stop(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    async fn stop_or_reload(&mut self, _node: &Node, _config: Option<&Path>) {
        self.stop().await;
    }
}

/// Serves until a signal, then drains; a second signal ends the draining.
pub async fn run(signals: &mut Signals, node: Node, config: Option<&Path>) -> End {
    let end = tokio::select! {
        () = signals.stop_or_reload(&node, config) => End::Asked,
        () = node.ended() => End::Again,
    };
    tracing::info!("stopping: connections are told to go away; a second signal ends at once");
    tokio::select! {
        () = node.stop() => tracing::info!("stopped"),
        () = signals.stop() => {
            tracing::warn!("stopped hard; what was accepted is durable");
            return End::Asked;
        }
    }
    end
}

/// Reads the allow and deny lists again; mistakes leave the old ones in force.
#[cfg(unix)]
fn reload(node: &Node, config: Option<&Path>) {
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
