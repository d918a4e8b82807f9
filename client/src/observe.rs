//! What happens to nodes, told to whoever wants to know.

use std::sync::Arc;
use std::time::Duration;

use client_core::error::Failure;
use client_core::metrics::{Followed, Loaded, Metrics, Op};
use client_core::options::ClientOptions;
use client_core::states::{NodeEvent, Observer};

/// Tells an observer what the client tells its metrics of nodes.
#[derive(Debug)]
struct Observed {
    observer: Observer,
    metrics: Option<Arc<dyn Metrics>>,
}

/// The options with their observer, if they have one, among the metrics.
pub(crate) fn observed(mut options: ClientOptions) -> ClientOptions {
    if let Some(observer) = options.observer.take() {
        let metrics = options.metrics.take();
        options.metrics = Some(Arc::new(Observed { observer, metrics }));
    }
    options
}

impl Observed {
    fn metrics(&self, tell: impl FnOnce(&dyn Metrics)) {
        if let Some(metrics) = &self.metrics {
            tell(&**metrics);
        }
    }
}

impl Metrics for Observed {
    fn request(&self, node: &str, op: Op, outcome: Result<(), Failure>, latency: Duration) {
        self.metrics(|metrics| metrics.request(node, op, outcome, latency));
    }

    fn looked_up(&self, hits: u64, misses: u64) {
        self.metrics(|metrics| metrics.looked_up(hits, misses));
    }

    fn looked_up_near(&self, hits: u64, misses: u64) {
        self.metrics(|metrics| metrics.looked_up_near(hits, misses));
    }

    fn followed(&self, node: &str, what: Followed) {
        self.metrics(|metrics| metrics.followed(node, what));
    }

    fn dropped_in_flight(&self) {
        self.metrics(|metrics| metrics.dropped_in_flight());
    }

    fn ejected(&self, node: &str) {
        self.metrics(|metrics| metrics.ejected(node));
        (self.observer.0)(NodeEvent::Ejected(node.into()));
    }

    fn returned(&self, node: &str) {
        self.metrics(|metrics| metrics.returned(node));
        (self.observer.0)(NodeEvent::Returned(node.into()));
    }

    fn loaded(&self, how: Loaded, took: Duration) {
        self.metrics(|metrics| metrics.loaded(how, took));
    }
}
