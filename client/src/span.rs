//! Spans of the crate `tracing` around operations (feature `tracing`).
//!
//! Each operation is a span `ketch_client` at level debug, with the field `op` (as [`Op`] names it): one for a `get`, one for a whole
//! `get_multi`. A `get_or_load` is a `lease`, the loader's own spans, and a `store`.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use client_core::metrics::Op;

/// `work`, in a span of its own whenever it goes on.
pub(crate) async fn spanned<T>(op: Op, work: impl Future<Output = T>) -> T {
    let span = tracing::debug_span!("ketch_client", ?op);
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        let _entered = span.enter();
        let polled: Poll<T> = work.as_mut().poll(cx);
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::*;

    /// What became of spans, in order.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl Seen {
        fn note(&self, what: String) {
            self.0.lock().expect("nobody panics").push(what);
        }
    }

    impl Subscriber for Seen {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.name() == "ketch_client"
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            assert_eq!(*span.metadata().level(), Level::DEBUG);
            self.note(format!("new {}", span.values()));
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}

        fn enter(&self, _: &Id) {
            self.note("enter".to_owned());
        }

        fn exit(&self, _: &Id) {
            self.note("exit".to_owned());
        }
    }

    /// One span an operation, which is entered whenever it goes on, and left while it waits.
    #[test]
    fn a_span_around_an_operation() {
        let seen = Seen::default();
        let mut waited = false;
        let work = std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::replace(&mut waited, true) {
                Poll::Ready(7)
            } else {
                Poll::Pending
            }
        });
        let result = tracing::subscriber::with_default(seen.clone(), || {
            let mut work = pin!(spanned(Op::Get, work));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            loop {
                if let Poll::Ready(result) = work.as_mut().poll(&mut cx) {
                    return result;
                }
            }
        });
        assert_eq!(result, 7);
        let seen = seen.0.lock().expect("nobody panics").clone();
        assert_eq!(seen, ["new {op: Get}", "enter", "exit", "enter", "exit"]);
    }
}
