//! `get_or_load`, by the rules of [`load`](crate::load).
//!
//! ```text
//!  find: near cache, node, flight --> a value | a value to refresh | nothing: load
//!  load: the loader, what it brought to the node (only if nobody wrote meanwhile) and to the flight
//! ```

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Client;
use crate::core::calls;
use crate::error::Error;
use crate::load::costs::Costs;
use crate::load::flights::{Flight, Flights, Landing, Role};
use crate::load::rules::{Next, Rules, Seen};
use crate::load::{LoadError, LoadOptions, NEGATIVE_FLAGS};
use crate::metrics::Loaded;
use crate::value::{Cas, CasUnique, Item, Value};

/// Threads of one client that refresh values behind their callers; beyond them, callers do it themselves.
const REFRESHERS_MAX: usize = 16;

/// What a client remembers for its loads.
pub(super) struct Loads {
    costs: Costs,
    pub(super) flights: Flights,
    refreshers: AtomicUsize,
}

impl Loads {
    pub(super) fn new() -> Self {
        Loads {
            costs: Costs::new(),
            flights: Flights::default(),
            refreshers: AtomicUsize::new(0),
        }
    }
}

/// A value on a node, as it is stored there, and its version.
struct Held {
    item: Item,
    unique: CasUnique,
    /// Seconds; -1 without end.
    left: i64,
}

/// The right to load.
struct Win {
    unique: CasUnique,
    since: Instant,
    /// There was a value.
    refresh: bool,
}

enum Way {
    Value(Option<Item>),
    /// The value may be used, but is to be loaded anew.
    Refresh(Option<Item>, Win),
    /// To be loaded for the flight; without a lease if no node gave one.
    Load(Arc<Flight>, Option<Win>),
}

/// Why there is no way; as [`LoadError`], before a loader was asked.
enum NoWay {
    Elsewhere(Arc<str>),
    Timeout,
    Cache(Error),
}

impl<E> From<NoWay> for LoadError<E> {
    fn from(error: NoWay) -> Self {
        match error {
            NoWay::Elsewhere(words) => LoadError::Elsewhere(words),
            NoWay::Timeout => LoadError::Timeout,
            NoWay::Cache(error) => LoadError::Cache(error),
        }
    }
}

impl Client {
    /// The value of `key`, from the cache or else from `loader`, which is called by one caller of all processes while the
    /// others wait or use the old value. `options` are a time to live or [`LoadOptions`].
    ///
    /// `loader` gives the value, `None` if there is none, or an error. A value that is about to expire is loaded anew by
    /// one caller, who waits for it; see [`get_or_load_detached`](Self::get_or_load_detached). If that fails, the old
    /// value is used, and the next attempt is made when the lease is over.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use ketch_client::{Client, load::LoadOptions};
    /// # fn render(page: u32) -> Result<Option<String>, std::io::Error> { Ok(None) }
    /// # fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let page = client.get_or_load("page:1", Duration::from_secs(60), || render(1))?;
    ///
    /// let careful = LoadOptions::new(Duration::from_secs(60))
    ///     .stale(Duration::from_secs(300))
    ///     .negative(Duration::from_secs(5));
    /// let page = client.get_or_load("page:2", careful, || render(2))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_load<V: Into<Item>, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Item>, LoadError<E>> {
        let (key, options) = (key.as_ref(), options.into());
        match self.find(key, &options)? {
            Way::Value(value) => Ok(value),
            Way::Refresh(old, win) => Ok(self.refresh(key, &options, win, loader).unwrap_or(old)),
            Way::Load(flight, win) => self.load(key, &options, &flight, win, loader),
        }
    }

    /// As [`get_or_load`](Self::get_or_load), but a value that is about to expire, or stale, is loaded anew on a thread of
    /// its own, and given as it is meanwhile. At most 16 such threads run; beyond that callers do it themselves.
    pub fn get_or_load_detached<V: Into<Item>, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> Result<Option<V>, E> + Send + 'static,
    ) -> Result<Option<Item>, LoadError<E>> {
        let (key, options) = (key.as_ref(), options.into());
        match self.find(key, &options)? {
            Way::Value(value) => Ok(value),
            Way::Refresh(old, win) => {
                let Some(place) = Refresher::place(self) else {
                    return Ok(self.refresh(key, &options, win, loader).unwrap_or(old));
                };
                let (client, key) = (self.clone(), Box::<[u8]>::from(key));
                // Without a thread nothing is lost but time: the lease runs out.
                let _ = thread::Builder::new()
                    .name("ketch-refresh".into())
                    .spawn(move || {
                        let _place = place;
                        client.refresh(&key, &options, win, loader);
                    });
                Ok(old)
            }
            Way::Load(flight, win) => self.load(key, &options, &flight, win, loader),
        }
    }

    /// Everything before a loader is called.
    fn find(&self, key: &[u8], options: &LoadOptions) -> Result<Way, NoWay> {
        let begun = Instant::now();
        if let Some(item) = self.near_value(key, begun) {
            return Ok(Way::Value(item));
        }
        let mut rules = Rules::new(options, begun);
        let flights = &self.shared.loads.flights;
        if let Some(flight) = flights.find(key) {
            return self.ride(key, flight, &mut rules, None);
        }
        let epoch = self.near_epoch(key);
        match self.ask(key, &mut rules)? {
            (Next::Use, Some(held)) => {
                let left = rules.fresh(held.left);
                let value = self.open(Some(held.item)).map_err(NoWay::Cache)?;
                self.keep_near(key, &value, left, epoch);
                Ok(Way::Value(value))
            }
            (Next::Refresh, Some(held)) => {
                let win = held.win(begun, true);
                let value = self.open(Some(held.item)).map_err(NoWay::Cache)?;
                Ok(Way::Refresh(value, win))
            }
            (Next::Load, Some(held)) => {
                let win = held.win(begun, false);
                Ok(self.won(key, flights.enter(key), win))
            }
            (next, _) => self.ride(key, flights.enter(key), &mut rules, Some(next)),
        }
    }

    /// Waits for `flight` to bring the value, or takes its seat. `next` is what the node's answer said to do.
    fn ride(
        &self,
        key: &[u8],
        flight: Arc<Flight>,
        rules: &mut Rules,
        mut next: Option<Next>,
    ) -> Result<Way, NoWay> {
        let begun = Instant::now();
        let shared = |landing| match landing {
            Landing::Found(value) => {
                self.tell_load(Loaded::Shared, begun.elapsed());
                Ok(Way::Value(value))
            }
            Landing::Failed(words) => Err(NoWay::Elsewhere(words)),
        };
        let late = || {
            self.tell_load(Loaded::Timeout, begun.elapsed());
            Err(NoWay::Timeout)
        };
        match flight.board(rules.deadline) {
            Role::Passenger(landing) => return shared(landing),
            Role::Late => return late(),
            Role::Pilot => {}
        }
        let mut seat = Seat {
            flight,
            kept: false,
        };
        loop {
            let asked = Instant::now();
            let (next, held) = match next.take() {
                Some(next) => (next, None),
                None => self.ask(key, rules)?,
            };
            match (next, held) {
                (Next::Wait(at), _) => {
                    if let Some(landing) = seat.flight.pause(at) {
                        return shared(landing);
                    }
                }
                (Next::GiveUp, _) => return late(),
                (Next::Load, Some(held)) => {
                    let win = held.win(asked, false);
                    return Ok(self.won(key, seat.keep(), win));
                }
                (next @ (Next::Use | Next::Refresh), Some(held)) => {
                    let win = held.win(asked, true);
                    let value = self.open(Some(held.item)).map_err(NoWay::Cache)?;
                    self.land(key, &seat.keep(), Landing::Found(value.clone()));
                    return Ok(match next {
                        Next::Refresh => Way::Refresh(value, win),
                        _ => Way::Value(value),
                    });
                }
                _ => return Ok(Way::Load(seat.keep(), None)),
            }
        }
    }

    fn land(&self, key: &[u8], flight: &Arc<Flight>, landing: Landing) {
        self.shared.loads.flights.land(key, flight, landing);
    }

    /// Asks the node that decides. Frees the lease of a loader that seems to be dead, and asks again.
    fn ask(&self, key: &[u8], rules: &mut Rules) -> Result<(Next, Option<Held>), NoWay> {
        let costs = &self.shared.loads.costs;
        loop {
            let chance = [self.random(), self.random()];
            let (lease_s, recache_s) = rules.ask(costs.delta(key), chance);
            let leased = self.call(|context| calls::lease(context, key, lease_s, recache_s));
            let now = Instant::now();
            let leased = match leased {
                Ok(leased) => leased,
                Err(error @ Error::Key(_)) => return Err(NoWay::Cache(error)),
                Err(error) => {
                    log::debug!("asking for a lease: {error}");
                    None
                }
            };
            let seen = leased.as_ref().map(|(meta, unique)| {
                let placeholder = meta.is_placeholder();
                let won_for = if meta.won_by_other && !placeholder {
                    costs.lease_of_other(key, unique.number, now)
                } else {
                    Duration::ZERO
                };
                Seen {
                    placeholder,
                    won: meta.won,
                    won_by_other: meta.won_by_other,
                    won_for,
                }
            });
            let next = rules.answer(seen, now, self.random());
            let hit = matches!(next, Next::Use | Next::Refresh);
            self.tell_lookups(u64::from(hit), u64::from(!hit));
            let held = leased.map(|(meta, unique)| Held {
                left: meta.ttl.unwrap_or(-1),
                item: Item::new(meta.value, meta.flags),
                unique,
            });
            match (next, held) {
                (Next::TakeOver, Some(held)) => {
                    self.store_raw(key, &held.item, held.unique, held.left)
                }
                (next, held) => return Ok((next, held)),
            };
        }
    }

    /// The lease is won, and the first copy has no value. Another may have it.
    fn won(&self, key: &[u8], flight: Arc<Flight>, win: Win) -> Way {
        if let Some((item, left)) = self.elsewhere(key)
            && let Ok(value) = self.open(Some(item.clone()))
        {
            self.store_raw(key, &item, win.unique, left);
            self.land(key, &flight, Landing::Found(value.clone()));
            return Way::Value(value);
        }
        Way::Load(flight, Some(win))
    }

    /// Calls the loader, and shares what it brought.
    fn load<V: Into<Item>, E: fmt::Display>(
        &self,
        key: &[u8],
        options: &LoadOptions,
        flight: &Arc<Flight>,
        win: Option<Win>,
        loader: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Item>, LoadError<E>> {
        let begun = Instant::now();
        let loaded = catch_unwind(AssertUnwindSafe(loader));
        let took = begun.elapsed();
        let land = |landing| self.land(key, flight, landing);
        let fail = |words: String| {
            if let Some(win) = &win {
                self.release(key, win);
            }
            land(Landing::Failed(words.into()));
            self.tell_load(Loaded::Failed, took);
        };
        match loaded {
            Ok(Ok(value)) => {
                let value = value.map(Into::into);
                self.shared.loads.costs.took(key, took);
                if let Some(win) = &win {
                    self.store_loaded(key, options, win, value.as_ref());
                }
                land(Landing::Found(value.clone()));
                self.tell_load(Loaded::Missing, took);
                Ok(value)
            }
            Ok(Err(error)) => {
                fail(error.to_string());
                Err(LoadError::Loader(error))
            }
            Err(panic) => {
                fail("the loader panicked".to_owned());
                resume_unwind(panic)
            }
        }
    }

    /// Calls the loader for a value that there is; `None` if it fails, whose lease then keeps others from trying at once.
    fn refresh<V: Into<Item>, E: fmt::Display>(
        &self,
        key: &[u8],
        options: &LoadOptions,
        win: Win,
        loader: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Option<Option<Item>> {
        let begun = Instant::now();
        let loaded = loader();
        let took = begun.elapsed();
        match loaded {
            Ok(value) => {
                let value = value.map(Into::into);
                self.shared.loads.costs.took(key, took);
                self.store_loaded(key, options, &win, value.as_ref());
                self.tell_load(Loaded::Refreshed, took);
                Some(value)
            }
            Err(error) => {
                log::warn!("a value could not be loaded anew: {error}");
                self.tell_load(Loaded::Failed, took);
                None
            }
        }
    }

    /// Stores what was loaded, unless somebody wrote meanwhile.
    fn store_loaded(&self, key: &[u8], options: &LoadOptions, win: &Win, value: Option<&Item>) {
        let (value, ttl) = match (value, options.negative) {
            (Some(item), _) => (Value::from(item), options.kept()),
            (None, Some(ttl)) => (Value::from((&[], NEGATIVE_FLAGS)), Some(ttl)),
            (None, None) => return self.release(key, win),
        };
        let stored = match self.cas(key, value, win.unique, ttl) {
            // The lease ran out, and what stood for the value with it: whoever is first now.
            Ok(Cas::Missing)
                if Rules::new(options, win.since).is_over(win.since, Instant::now()) =>
            {
                self.add(key, value, ttl).map(|_| ())
            }
            stored => stored.map(|_| ()),
        };
        if let Err(error) = stored {
            log::debug!("a loaded value was not stored: {error}");
        }
    }

    /// There is nothing to store: what stands for the value, or the old value, goes.
    fn release(&self, key: &[u8], win: &Win) {
        let gone = if win.refresh {
            self.delete(key)
        } else {
            self.call(|context| calls::delete_if(context, key, win.unique))
        };
        if let Err(error) = gone {
            log::debug!("a lease was not given back: {error}");
        }
    }

    /// Stores an item as it came, if the one with this version is still there.
    fn store_raw(&self, key: &[u8], item: &Item, unique: CasUnique, left: i64) {
        // What expires now may as well live for one second more.
        let ttl = (left >= 0).then(|| Duration::from_secs(left.max(1).unsigned_abs()));
        let stored = self.call(|context| calls::cas(context, key, item.into(), unique, ttl));
        if let Err(error) = stored {
            log::debug!("a value was not carried over: {error}");
        }
    }
}

impl Held {
    fn win(&self, since: Instant, refresh: bool) -> Win {
        Win {
            unique: self.unique,
            since,
            refresh,
        }
    }
}

/// The seat of a flight, left when dropped.
struct Seat {
    flight: Arc<Flight>,
    kept: bool,
}

impl Seat {
    /// The flight, whose seat stays taken until it lands.
    fn keep(&mut self) -> Arc<Flight> {
        self.kept = true;
        self.flight.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.kept {
            self.flight.leave();
        }
    }
}

/// A place among the threads that refresh.
struct Refresher(Client);

impl Refresher {
    fn place(client: &Client) -> Option<Self> {
        let refreshers = &client.shared.loads.refreshers;
        let place = Refresher(client.clone());
        // Dropped, it gives back what was counted here, in any case.
        (refreshers.fetch_add(1, Ordering::Relaxed) < REFRESHERS_MAX).then_some(place)
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        self.0
            .shared
            .loads
            .refreshers
            .fetch_sub(1, Ordering::Relaxed);
    }
}
