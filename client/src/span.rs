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
