//! The loader, and what becomes of what it brings.
//!
//! ```text
//!  loader --> value or failure --> to the node (only if nobody wrote meanwhile) --> to the flight
//!   may be dropped with its caller | from here on to the end, whatever becomes of the caller
//! ```

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use super::find::{Way, find};
use super::loading::Loading;
use super::rules::Rules;
use super::{LoadError, LoadOptions, NEGATIVE_FLAGS};
use crate::front::{Front, call};
use crate::loads::flights::{Landing, Rider};
use crate::loads::wins::{Lease, Win};
use client_core::calls;
use client_core::error::Error;
use client_core::metrics::Loaded;
use client_core::request::StoreMode;
use client_core::value::{Cas, Item, Value};

/// What is said of a loader that panicked.
const PANICKED: &str = "the loader panicked";

/// The value of `key`, from the cache or else from `loader`, which is not polled if there is a value to use.
pub(crate) async fn get_or_load<F: Front, E: fmt::Display>(
    front: &F,
    key: &[u8],
    options: LoadOptions,
    loader: impl Future<Output = Result<Option<Item>, E>>,
) -> Result<Option<Item>, LoadError<E>> {
    let options = options.resolved(front);
    let key = key.into();
    match find(front, &key, &options).await? {
        Way::Value(value) => Ok(value),
        Way::Refresh(old, win) => {
            let new = refresh(front.clone(), key, options, win, loader);
            Ok(new.await.unwrap_or(old))
        }
        Way::Load(rider, win) => load(front, key, options, rider, win, loader).await,
    }
}

/// As [`get_or_load`], but values that there are, are loaded anew behind the caller.
pub(crate) async fn get_or_load_detached<F: Front, E: fmt::Display>(
    front: &F,
    key: &[u8],
    options: LoadOptions,
    loader: impl Future<Output = Result<Option<Item>, E>> + Send + 'static,
) -> Result<Option<Item>, LoadError<E>> {
    let options = options.resolved(front);
    let key = key.into();
    match find(front, &key, &options).await? {
        Way::Value(value) => Ok(value),
        Way::Refresh(old, win) => {
            let loader = async { loader.await.map_err(|error| error.to_string()) };
            let new = refresh(front.clone(), key, options, win, loader);
            let Some(place) = Place::take(&front.values().loads.refreshes, F::REFRESHES_MAX) else {
                return Ok(new.await.unwrap_or(old));
            };
            front.spawn(async move {
                let _place = place;
                new.await;
            });
            Ok(old)
        }
        Way::Load(rider, win) => load(front, key, options, rider, win, loader).await,
    }
}

/// Calls the loader, and shares what it brought.
async fn load<F: Front, E: fmt::Display>(
    front: &F,
    key: Arc<[u8]>,
    options: LoadOptions,
    rider: Rider,
    win: Option<Win>,
    loader: impl Future<Output = Result<Option<Item>, E>>,
) -> Result<Option<Item>, LoadError<E>> {
    let begun = front.now();
    let loaded = caught(loader, Some(&Loading::new(front.shared(), &key))).await;
    let took = front.now().saturating_duration_since(begun);
    let landing = match &loaded {
        Ok(Ok(value)) => Landing::Found(value.clone()),
        Ok(Err(error)) => Landing::Failed(error.to_string().into()),
        Err(_) => Landing::Failed(PANICKED.into()),
    };
    let values = front.values();
    if let Landing::Found(_) = landing {
        values.loads.costs.took(&key, took);
        values.tell_load(Loaded::Missing, took);
    } else {
        values.tell_load(Loaded::Failed, took);
    }
    let win = win.map(Win::spend);
    let settle = settle(front.clone(), key, options, rider, win, (landing, took));
    front.finish(settle).await;
    match loaded {
        Ok(loaded) => loaded.map_err(LoadError::Loader),
        Err(panic) => resume_unwind(panic),
    }
}

/// What was loaded goes to the node and to the flight.
async fn settle<F: Front>(
    front: F,
    key: Arc<[u8]>,
    options: LoadOptions,
    rider: Rider,
    win: Option<Lease>,
    (landing, took): (Landing, Duration),
) {
    match (&win, &landing) {
        (Some(win), Landing::Found(value)) => {
            store(&front, &key, &options, win, (value.as_ref(), took)).await;
        }
        (Some(win), Landing::Failed(_)) => release(&front, &key, win).await,
        (None, _) => {}
    }
    rider.land(landing);
}

/// Calls the loader for a value that there is; `None` if it fails, whose lease then keeps others from trying at once.
async fn refresh<F: Front, E: fmt::Display>(
    front: F,
    key: Arc<[u8]>,
    options: LoadOptions,
    win: Win,
    loader: impl Future<Output = Result<Option<Item>, E>>,
) -> Option<Option<Item>> {
    let begun = front.now();
    // It may ask for its own key, as others do meanwhile: there is the old value.
    let loaded = caught(loader, None).await;
    let took = front.now().saturating_duration_since(begun);
    let win = win.spend();
    let values = front.values();
    match loaded {
        Ok(Ok(value)) => {
            values.loads.costs.took(&key, took);
            values.tell_load(Loaded::Refreshed, took);
            let (behind, new) = (front.clone(), value.clone());
            let store = async move {
                store(&behind, &key, &options, &win, (new.as_ref(), took)).await;
            };
            front.finish(store).await;
            Some(value)
        }
        Ok(Err(error)) => {
            log::warn!("a value could not be loaded anew: {error}");
            values.tell_load(Loaded::Failed, took);
            None
        }
        Err(panic) => {
            values.tell_load(Loaded::Failed, took);
            resume_unwind(panic)
        }
    }
}

/// Stores what was loaded, unless somebody wrote meanwhile.
async fn store<F: Front>(
    front: &F,
    key: &[u8],
    options: &LoadOptions,
    win: &Lease,
    (value, took): (Option<&Item>, Duration),
) {
    let (value, ttl) = match (value, options.negative) {
        (Some(item), _) => (Value::from(item), options.kept()),
        (None, Some(ttl)) => (Value::from((b"", NEGATIVE_FLAGS)), Some(ttl)),
        (None, None) => return release(front, key, win).await,
    };
    let packed = front.values().pack(value);
    let cas = |context| calls::cas(context, key, packed.payload(), win.unique, ttl);
    let mut stored = call(front, cas).await.map(|cas| cas != Cas::Missing);
    // The lease ran out, and what stood for the value with it: whoever is first now.
    if stored == Ok(false) && Rules::new(options, win.since).is_over(win.since, front.now()) {
        let add = |context| calls::store(context, key, packed.payload(), StoreMode::Add, ttl);
        stored = call(front, add).await;
    }
    front.values().wrote(key);
    let Err(error) = stored else { return };
    let refused = matches!(
        error,
        Error::TooLarge { .. } | Error::Full { .. } | Error::Refused { .. }
    );
    if refused {
        log::warn!("a loaded value was not stored: {error}");
        front.values().tell_load(Loaded::NotStored, took);
        let delete = |context| calls::delete_if(context, key, win.unique);
        if let Err(error) = call(front, delete).await {
            log::debug!("a lease was not given back: {error}");
        }
    } else {
        log::debug!("a loaded value was not stored: {error}");
    }
}

/// There is nothing to store: what stands for the value, or the old value, goes.
async fn release<F: Front>(front: &F, key: &[u8], win: &Lease) {
    let gone = if win.refresh {
        let gone = call(front, |context| calls::delete(context, key)).await;
        front.values().wrote(key);
        gone
    } else {
        let delete = |context| calls::delete_if(context, key, win.unique);
        call(front, delete).await
    };
    if let Err(error) = gone {
        log::debug!("a lease was not given back: {error}");
    }
}

/// The result of `work`, or its panic. What `loading` says is known while it runs.
async fn caught<T>(
    work: impl Future<Output = T>,
    loading: Option<&Loading>,
) -> Result<T, Box<dyn Any + Send>> {
    let mut work = pin!(work);
    let poll = poll_fn(|cx| {
        let _running = loading.map(Loading::run);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    });
    poll.await
}

/// One of so many places, free again when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Place(taken.clone());
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
