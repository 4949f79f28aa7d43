//! Whether a partition is this host's, from one lane's point of view.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::membership::{Holdings, View};

/// How long the host that holds a partition may take to release it. After that it is
/// taken over all the same: the fence sees to what is under way there.
pub const RELEASE_MAX: Duration = Duration::from_secs(5);

/// One partition among hosts.
#[derive(Debug)]
pub struct Ownership {
    view: watch::Receiver<Arc<View>>,
    holdings: Holdings,
    host: Arc<str>,
    handler: Arc<str>,
    /// The name under which hosts say that they hold it.
    held_as: Arc<str>,
    partition: u32,
    mine: bool,
}

impl Ownership {
    pub fn new(
        view: watch::Receiver<Arc<View>>,
        holdings: Holdings,
        host: &str,
        handler: &str,
        held_as: &str,
        partition: u32,
    ) -> Ownership {
        let mut this = Ownership {
            view,
            holdings,
            host: host.into(),
            handler: handler.into(),
            held_as: held_as.into(),
            partition,
            mine: false,
        };
        this.look();
        this
    }

    fn look(&mut self) {
        let view = self.view.borrow_and_update();
        self.mine = view.owner(&self.handler, self.partition) == Some(&self.host);
    }

    /// Whether the partition is to be this host's.
    pub fn mine(&mut self) -> bool {
        // An error means that the host is gone, and everything stays as it is.
        if self.view.has_changed().unwrap_or(false) {
            self.look();
        }
        self.mine
    }

    /// Another pair of eyes on the same view, for waiting; it holds nothing.
    pub fn watcher(&self) -> Watcher {
        Watcher(self.view.clone())
    }

    /// The host that is to own the partition.
    pub fn owner(&self) -> Option<Arc<str>> {
        self.view.borrow().owner(&self.handler, self.partition).cloned()
    }

    /// Another host that holds it.
    pub fn holder(&self) -> Option<Arc<str>> {
        self.view
            .borrow()
            .holder(&self.host, &self.held_as, self.partition)
            .cloned()
    }

    /// This host leaves all partitions to newer ones. Returns whether that is news.
    pub fn withdraw(&self) -> bool {
        self.holdings.withdraw()
    }

    /// This host holds the partition, or does not any more.
    pub fn hold(&self, held: bool) {
        self.holdings.set(&self.held_as, self.partition, held);
    }
}

/// Waits for another view.
pub struct Watcher(watch::Receiver<Arc<View>>);

impl Watcher {
    /// Waits until hosts come or go, or hold other partitions. Cancel safe; never ends
    /// once the host is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Ownership {
    /// A lane that ends, however it does, holds nothing.
    fn drop(&mut self) {
        self.hold(false);
    }
}
