//! Links of this server's own chain that somebody else holds and it does not: it was restored from an old copy
//! (04-chains, 4.3).

use std::sync::Arc;

use tidings_federation::host::Adopted;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::Incarnation;

use crate::identity::{self, Adoption, IdentityError};
use crate::node::Shared;

impl Shared {
    /// A device refused this server for links of its chain that it holds and was not shown.
    pub(crate) async fn heed(self: &Arc<Self>, refusal: &Refusal) {
        if refusal.code != Code::WRONG_SERVER || refusal.links.is_empty() {
            return;
        }
        // What fails is logged there.
        if let Ok(Adopted::Grown) = self.adopt(refusal).await
            && let Some(federation) = self.federation.load_full()
        {
            federation.halt();
        }
    }

    /// Keeps such links if they verify. Then nothing is signed or served any more until this server has started
    /// again: its logs are of an incarnation that has ended.
    pub(crate) async fn adopt(self: &Arc<Self>, refusal: &Refusal) -> Result<Adopted, IdentityError> {
        let (folder, links, head) = (self.config.data.clone(), refusal.links.clone(), refusal.head.clone());
        let incarnation = Incarnation(self.random());
        let shared = Arc::clone(self);
        // One at a time, and not on a thread that serves connections: it waits for the disk.
        let adopting = tokio::task::spawn_blocking(move || {
            let _one = shared.adopting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            identity::adopt(&folder, &links, &head, incarnation)
        });
        let adopted = adopting.await.unwrap_or_else(|error| {
            tracing::error!(%error, "taking links of the server's chain ended badly");
            Ok(Adoption::Nothing)
        });
        match &adopted {
            Ok(Adoption::Nothing) => {}
            Ok(Adoption::Grown) => tracing::error!(
                "this server was restored from an old copy: others hold links of its chain that it had lost. They \
                 are kept now, and nothing is served until the server is started again: restart it"
            ),
            Ok(Adoption::Mute) => tracing::error!(
                "this server was restored from an old copy, and the online key that it has was retired since. \
                 Nothing is served: put the present server-online.key into the data folder and restart"
            ),
            Ok(Adoption::Forked) => tracing::error!(
                "others hold another branch of this server's chain: the copy that it was restored from lacked \
                 links. Until that is mended they refuse this server: stop it, run `tidings new-incarnation`, start it"
            ),
            Err(error) => {
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "links of the server's chain were not kept"
                );
            }
        }
        let grown = matches!(adopted, Ok(Adoption::Grown | Adoption::Mute));
        if grown {
            self.stopping.send_replace(true);
        }
        adopted.map(|_| if grown { Adopted::Grown } else { Adopted::Nothing })
    }
}
