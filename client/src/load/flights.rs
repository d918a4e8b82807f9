//! The callers of one process that need the same value.
//!
//! ```text
//!  enter(key) -> Flight, shared by all callers until it lands
//!    one of them has the seat: it loads, or asks the node again and again while another process loads
//!    the others wait for the landing, for the seat to be free, or for their deadline
//! ```
//!
//! G1. A flight lands once; with it, it is no longer found, so that later callers begin another.
//! G2. Who leaves the seat without landing (its deadline passed) wakes one that waits.
//! G3. There are at most as many flights as callers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::value::Item;

/// What a flight brought.
#[derive(Debug, Clone)]
pub(crate) enum Landing {
    Found(Option<Item>),
    /// Why not, in words.
    Failed(Arc<str>),
}

/// All flights of a client.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flights: Mutex<HashMap<Box<[u8]>, Arc<Flight>>>,
    count: AtomicUsize,
}

#[derive(Debug, Default)]
pub(crate) struct Flight {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    landing: Option<Landing>,
    seated: bool,
}

/// What a caller on a flight is to do.
#[derive(Debug)]
pub(crate) enum Role {
    /// It has the seat.
    Pilot,
    Passenger(Landing),
    /// Its deadline passed.
    Late,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// The flight of `key`, if there is one.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Arc<Flight>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        lock(&self.flights).get(key).cloned()
    }

    /// The flight of `key`, a new one if there is none.
    pub(crate) fn enter(&self, key: &[u8]) -> Arc<Flight> {
        let mut flights = lock(&self.flights);
        let flight = flights.entry(key.into()).or_default().clone();
        self.count.store(flights.len(), Ordering::Relaxed);
        flight
    }

    /// `key` was written: what is under way goes on, but callers from now on do not join it.
    pub(crate) fn forget(&self, key: &[u8]) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut flights = lock(&self.flights);
            flights.remove(key);
            self.count.store(flights.len(), Ordering::Relaxed);
        }
    }

    /// Ends `flight`.
    pub(crate) fn land(&self, key: &[u8], flight: &Arc<Flight>, landing: Landing) {
        let mut flights = lock(&self.flights);
        if flights
            .get(key)
            .is_some_and(|found| Arc::ptr_eq(found, flight))
        {
            flights.remove(key);
            self.count.store(flights.len(), Ordering::Relaxed);
        }
        drop(flights);
        let mut state = lock(&flight.state);
        state.landing.get_or_insert(landing);
        drop(state);
        flight.changed.notify_all();
    }
}

impl Flight {
    /// Waits for the landing or the seat.
    pub(crate) fn board(&self, deadline: Instant) -> Role {
        let mut state = lock(&self.state);
        loop {
            if let Some(landing) = &state.landing {
                return Role::Passenger(landing.clone());
            }
            if !state.seated {
                state.seated = true;
                return Role::Pilot;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Role::Late;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits, in the seat, until a time or the landing, which a caller that won the lease may bring.
    pub(crate) fn pause(&self, until: Instant) -> Option<Landing> {
        let mut state = lock(&self.state);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.landing.is_some() || left.is_zero() {
                return state.landing.clone();
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives the seat to another.
    pub(crate) fn leave(&self) {
        lock(&self.state).seated = false;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    fn item(value: &'static str) -> Option<Item> {
        Some(Item::from(value))
    }

    #[test]
    fn one_pilot_and_many_passengers() {
        let flights = Flights::default();
        assert!(flights.find(b"k").is_none());
        let flight = flights.enter(b"k");
        assert!(matches!(flight.board(Instant::now()), Role::Pilot));
        assert!(matches!(flight.board(Instant::now()), Role::Late));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let flight = flights.enter(b"k");
                    match flight.board(Instant::now() + LONG) {
                        Role::Passenger(Landing::Found(found)) => assert_eq!(found, item("v")),
                        role => panic!("{role:?}"),
                    }
                });
            }
            // Each caller holds the flight once it is on it.
            while Arc::strong_count(&flight) < 10 {
                thread::yield_now();
            }
            flights.land(b"k", &flight, Landing::Found(item("v")));
        });
        assert!(flights.find(b"k").is_none());
        let again = flights.enter(b"k");
        assert!(!Arc::ptr_eq(&flight, &again));
    }

    #[test]
    fn a_seat_that_is_left_is_taken() {
        let flights = Flights::default();
        let flight = flights.enter(b"k");
        assert!(matches!(flight.board(Instant::now()), Role::Pilot));
        thread::scope(|scope| {
            let next = scope.spawn(|| flight.board(Instant::now() + LONG));
            flight.leave();
            assert!(matches!(next.join(), Ok(Role::Pilot)));
        });
        assert!(flight.pause(Instant::now()).is_none());
        flights.land(b"k", &flight, Landing::Failed("no".into()));
        assert!(matches!(
            flight.pause(Instant::now() + LONG),
            Some(Landing::Failed(_))
        ));
    }

    #[test]
    fn a_write_parts_the_callers_before_from_those_after() {
        let flights = Flights::default();
        let before = flights.enter(b"k");
        flights.forget(b"k");
        let after = flights.enter(b"k");
        assert!(!Arc::ptr_eq(&before, &after));
        flights.land(b"k", &before, Landing::Found(None));
        assert!(
            flights
                .find(b"k")
                .is_some_and(|found| Arc::ptr_eq(&found, &after))
        );
    }
}
