//! Work that is done to its end, whatever becomes of who waits for it.
//!
//! ```text
//!  polled by its caller --> result
//!           | dropped in the middle
//!           '--> a task of its own, of the runtime that it began in; the result is dropped
//! ```
//!
//! Only who is dropped pays for a task. Work that was never polled has not begun, and is not begun. If the runtime ends,
//! the work does.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::runtime::Handle;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See the module.
struct Behind<T: Send + 'static> {
    /// `None` when it is done.
    work: Option<Work<T>>,
    /// Where it goes on; `None` until it begins.
    runtime: Option<Handle>,
}

/// Does `work`, and once begun to its end.
pub(super) fn finish<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send {
    Behind {
        work: Some(Box::pin(work)),
        runtime: None,
    }
}

impl<T: Send + 'static> Future for Behind<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Behind { work, runtime } = &mut *self;
        runtime.get_or_insert_with(Handle::current);
        let polled = work.as_mut().expect("not polled after its end");
        let result = ready!(polled.as_mut().poll(cx));
        *work = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for Behind<T> {
    fn drop(&mut self) {
        if let (Some(work), Some(runtime)) = (self.work.take(), &self.runtime) {
            runtime.spawn(async { drop(work.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;

    use ::tokio::sync::oneshot;

    #[::tokio::test]
    async fn what_was_begun_goes_on_without_its_caller() {
        for begun in [false, true] {
            let (go, wait) = oneshot::channel::<()>();
            let (done, is_done) = oneshot::channel();
            let mut work = Box::pin(finish(async {
                let _ = wait.await;
                let _ = done.send(());
            }));
            if begun {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(pin!(&mut work).poll(&mut cx).is_pending());
            }
            drop(work);
            let _ = go.send(());
            assert_eq!(is_done.await.is_ok(), begun);
        }
    }

    #[::tokio::test]
    async fn who_waits_has_the_result() {
        assert_eq!(finish(async { 7 }).await, 7);
    }
}
