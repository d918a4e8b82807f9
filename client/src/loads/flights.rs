//! The callers of one process that need the same value.
//!
//! ```text
//!  enter(key) -> Rider of a flight that all callers of the key share until it lands
//!    one rider has the seat: it loads, or asks the node again and again while another process loads
//!    the others wait for the landing, or for the seat to be free; by wakers, so that threads and tasks wait alike
//! ```
//!
//! G1. A flight lands once; with it, it is no longer found, so that later callers begin another.
//! G2. While the seat is free and riders wait, one of them has been woken and is still there. So whoever has the seat
//!     and gives up, or is dropped, leaves nobody waiting for it.
//! G3. There are at most as many flights as riders: the last one takes it away.
//!
//! Lock order: the map, then a flight. Wakers are woken and dropped outside: what they belong to may be a rider.

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use client_core::value::Item;

/// What a flight brought.
#[derive(Debug, Clone)]
pub(crate) enum Landing {
    Found(Option<Item>),
    /// Why not, in words.
    Failed(Arc<str>),
}

/// All flights of a client. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flights(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    flights: Mutex<HashMap<Arc<[u8]>, Arc<Flight>>>,
    /// How many there are, to be seen without the lock.
    count: AtomicUsize,
}

type Flight = Mutex<State>;

#[derive(Debug, Default)]
struct State {
    landing: Option<Landing>,
    /// Who has the seat.
    pilot: Option<u64>,
    riders: usize,
    /// The number of the next rider.
    next: u64,
    /// Riders that wait, the first to come first.
    waiting: BTreeMap<u64, Waker>,
}

/// A caller on a flight.
#[derive(Debug)]
pub(crate) struct Rider {
    flights: Flights,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
    id: u64,
}

/// What a rider is to do.
#[derive(Debug)]
pub(crate) enum Role {
    /// It has the seat.
    Pilot,
    Passenger(Landing),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// Joins the flight of `key`, if there is one.
    pub(crate) fn find(&self, key: &Arc<[u8]>) -> Option<Rider> {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let flights = lock(&self.0.flights);
        Some(self.ride(key, flights.get(key)?))
    }

    /// Joins the flight of `key`, a new one if there is none.
    pub(crate) fn enter(&self, key: &Arc<[u8]>) -> Rider {
        let mut flights = lock(&self.0.flights);
        let rider = self.ride(key, flights.entry(key.clone()).or_default());
        self.count(&flights);
        rider
    }

    /// A rider more; the map is locked.
    fn ride(&self, key: &Arc<[u8]>, flight: &Arc<Flight>) -> Rider {
        let mut state = lock(flight);
        state.riders += 1;
        state.next += 1;
        Rider {
            flights: self.clone(),
            key: key.clone(),
            flight: flight.clone(),
            id: state.next,
        }
    }

    /// `key` was written: what is under way goes on, but callers from now on do not join it.
    pub(crate) fn forget(&self, key: &[u8]) {
        if self.0.count.load(Ordering::Relaxed) > 0 {
            let mut flights = lock(&self.0.flights);
            flights.remove(key);
            self.count(&flights);
        }
    }

    /// As [`forget`](Self::forget), for all keys.
    pub(crate) fn clear(&self) {
        let mut flights = lock(&self.0.flights);
        flights.clear();
        self.count(&flights);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0.flights).is_empty()
    }

    fn count(&self, flights: &HashMap<Arc<[u8]>, Arc<Flight>>) {
        self.0.count.store(flights.len(), Ordering::Relaxed);
    }
}

impl Rider {
    /// Waits for the landing or the seat.
    pub(crate) fn board(&self) -> impl Future<Output = Role> {
        poll_fn(|cx| self.poll(true, cx))
    }

    /// Waits for the landing alone, which another than the one in the seat may bring.
    pub(crate) fn landed(&self) -> impl Future<Output = Landing> {
        poll_fn(|cx| match self.poll(false, cx) {
            Poll::Ready(Role::Passenger(landing)) => Poll::Ready(landing),
            _ => Poll::Pending,
        })
    }

    /// A free seat is taken in any case: this rider may be the one that was woken for it. Whether it `boards`, and goes on
    /// with that, is another question.
    fn poll(&self, boards: bool, cx: &Context<'_>) -> Poll<Role> {
        let mut state = lock(&self.flight);
        let sits = *state.pilot.get_or_insert(self.id) == self.id;
        let role = match &state.landing {
            Some(landing) => Poll::Ready(Role::Passenger(landing.clone())),
            None if boards && sits => Poll::Ready(Role::Pilot),
            None => Poll::Pending,
        };
        let old = match role {
            Poll::Ready(_) => state.waiting.remove(&self.id),
            Poll::Pending => state.waiting.insert(self.id, cx.waker().clone()),
        };
        drop(state);
        drop(old);
        role
    }

    /// Takes the seat, from whoever has it: to load, while that one but asks.
    pub(crate) fn take_seat(&self) {
        lock(&self.flight).pilot = Some(self.id);
    }

    /// Ends the flight.
    pub(crate) fn land(self, landing: Landing) {
        self.take_away(|_| true);
        let mut state = lock(&self.flight);
        state.landing.get_or_insert(landing);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().for_each(Waker::wake);
    }

    /// Has the flight no longer be found, if it still is, and is `over`.
    fn take_away(&self, over: impl FnOnce(&State) -> bool) {
        let mut flights = lock(&self.flights.0.flights);
        let found = flights.get(&self.key);
        if found.is_some_and(|found| Arc::ptr_eq(found, &self.flight)) && over(&lock(&self.flight))
        {
            flights.remove(&self.key);
            self.flights.count(&flights);
        }
    }
}

impl Drop for Rider {
    fn drop(&mut self) {
        let mut state = lock(&self.flight);
        let own = state.waiting.remove(&self.id);
        state.riders -= 1;
        if state.pilot == Some(self.id) {
            state.pilot = None;
        }
        // Also when it had not the seat: it may be the one that was woken for it.
        let heir = match state.pilot {
            None => state.waiting.pop_first(),
            Some(_) => None,
        };
        let last = state.riders == 0 && state.landing.is_none();
        drop(state);
        drop(own);
        if let Some((_, waker)) = heir {
            waker.wake();
        }
        if last {
            self.take_away(|state| state.riders == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Bell(AtomicU32);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Bell {
        fn rung(&self) -> u32 {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    /// Polls `future` once, to be woken by `bell`.
    fn poll<T>(future: impl Future<Output = T>, bell: &Arc<Bell>) -> Poll<T> {
        let waker = Waker::from(bell.clone());
        pin!(future).poll(&mut Context::from_waker(&waker))
    }

    fn found(value: &'static str) -> Landing {
        Landing::Found(Some(Item::from(value)))
    }

    fn is_found(landing: &Landing, value: &'static str) -> bool {
        matches!(landing, Landing::Found(found) if *found == Some(Item::from(value)))
    }

    fn key() -> Arc<[u8]> {
        b"k"[..].into()
    }

    #[test]
    fn one_pilot_and_many_passengers() {
        let (flights, key, bell) = (Flights::default(), key(), Arc::default());
        assert!(flights.find(&key).is_none());
        let pilot = flights.enter(&key);
        assert!(matches!(
            poll(pilot.board(), &bell),
            Poll::Ready(Role::Pilot)
        ));
        assert!(poll(pilot.landed(), &bell).is_pending());
        let others: Vec<(Rider, Arc<Bell>)> = (0..8)
            .map(|_| (flights.find(&key).expect("it flies"), Arc::default()))
            .collect();
        for (rider, bell) in &others {
            assert!(poll(rider.board(), bell).is_pending());
            assert!(poll(rider.board(), bell).is_pending());
        }
        pilot.land(found("v"));
        assert!(flights.find(&key).is_none());
        for (rider, bell) in others {
            assert_eq!(bell.rung(), 1);
            match poll(rider.board(), &bell) {
                Poll::Ready(Role::Passenger(landing)) => assert!(is_found(&landing, "v")),
                role => panic!("{role:?}"),
            }
        }
    }

    #[test]
    fn a_seat_that_is_left_is_taken() {
        let (flights, key) = (Flights::default(), key());
        let bells: [Arc<Bell>; 4] = Default::default();
        let riders = [0, 1, 2, 3].map(|_| flights.enter(&key));
        let boards = |at: usize, rider: &Rider| match poll(rider.board(), &bells[at]) {
            Poll::Ready(Role::Pilot) => true,
            Poll::Ready(role) => panic!("{role:?}"),
            Poll::Pending => false,
        };
        let sits: Vec<bool> = (0..4).map(|at| boards(at, &riders[at])).collect();
        assert_eq!(sits, [true, false, false, false]);
        let rung = || bells.each_ref().map(|bell| bell.rung());
        let [first, second, third, fourth] = riders;
        drop(first);
        assert_eq!(rung(), [0, 1, 0, 0], "who has waited longest");
        // It goes away without having looked.
        drop(second);
        assert_eq!(rung(), [0, 0, 1, 0]);
        assert!(boards(2, &third));
        assert!(!boards(3, &fourth));
        // Robbed, and the robber gone: the seat is the pausing pilot's again.
        fourth.take_seat();
        assert!(poll(third.landed(), &bells[2]).is_pending());
        drop(fourth);
        assert_eq!(rung(), [0, 0, 1, 0]);
        assert!(poll(third.landed(), &bells[2]).is_pending());
        let late = flights.enter(&key);
        assert!(!boards(3, &late));
        // The last one takes the flight away.
        drop(third);
        assert!(flights.find(&key).is_some());
        drop(late);
        assert!(flights.find(&key).is_none());
        assert_eq!(flights.0.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_write_parts_the_callers_before_from_those_after() {
        let (flights, key, bell) = (Flights::default(), key(), Arc::default());
        let before = flights.enter(&key);
        flights.forget(&key);
        let after = flights.enter(&key);
        assert!(!Arc::ptr_eq(&before.flight, &after.flight));
        before.land(found("old"));
        let more = flights.find(&key).expect("it still flies");
        assert!(Arc::ptr_eq(&more.flight, &after.flight));
        flights.clear();
        assert!(flights.find(&key).is_none());
        after.land(found("new"));
        match poll(more.landed(), &bell) {
            Poll::Ready(landing) => assert!(is_found(&landing, "new")),
            Poll::Pending => panic!("it has landed"),
        }
    }
}
