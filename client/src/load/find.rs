//! Everything before a loader is asked.
//!
//! ```text
//!  near cache -> flight of this process -> the node -> use the value, refresh it, or load
//!                  | landed: its result      | somebody else loads: wait, in a flight
//!                  | the seat: ask the node <-'
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::loading;
use super::rules::{Next, Rules, Seen};
use super::{LoadError, LoadOptions};
use crate::front::{Front, call};
use crate::loads::flights::{Landing, Rider, Role};
use crate::loads::wins::{Lease, Win};
use crate::packed;
use client_core::calls;
use client_core::error::Error;
use client_core::metrics::Loaded;
use client_core::value::{CasUnique, Item};

/// How a call comes to its value.
pub(super) enum Way {
    Value(Option<Item>),
    /// The value may be used, but is to be loaded anew.
    Refresh(Option<Item>, Win),
    /// To be loaded for the flight; without a lease if no node gave one.
    Load(Rider, Option<Win>),
}

/// Why there is no way; as [`LoadError`], before a loader was asked.
pub(super) enum NoWay {
    Elsewhere(Arc<str>),
    Timeout,
    OwnKey,
    Cache(Error),
}

impl<E> From<NoWay> for LoadError<E> {
    fn from(error: NoWay) -> Self {
        match error {
            NoWay::Elsewhere(words) => LoadError::Elsewhere(words),
            NoWay::Timeout => LoadError::Timeout,
            NoWay::OwnKey => LoadError::OwnKey,
            NoWay::Cache(error) => LoadError::Cache(error),
        }
    }
}

/// What the node's answer means.
enum Answer {
    /// A value as it is stored, and the seconds it has left, -1 without end. With a win, it is to be loaded anew.
    Value(Item, i64, CasUnique, Option<Win>),
    Load(Win),
    /// No node answers.
    LoadAlone,
    Wait(Instant),
    GiveUp,
}

/// The way of a call of `key`. Dropped at any point, it leaves what it had to others.
pub(super) async fn find<F: Front>(
    front: &F,
    key: &Arc<[u8]>,
    options: &LoadOptions,
) -> Result<Way, NoWay> {
    let begun = front.now();
    let values = front.values();
    if loading::is_loading(front.shared(), key) {
        return Err(NoWay::OwnKey);
    }
    if let Some(item) = values.near(key, begun) {
        return Ok(Way::Value(Some(item)));
    }
    let ride = Ride {
        front,
        begun,
        deadline: begun + options.wait,
    };
    let mut rules = Rules::new(options, begun);
    let mut rider = values.loads.flights.find(key);
    loop {
        if let Some(rider) = &rider
            && let Some(way) = ride.board(rider).await
        {
            return way;
        }
        let epoch = values.epoch(key);
        let answer;
        // A lease that is on its way to a caller that is gone is not to be lost.
        (rules, answer) = front
            .finish(ask(front.clone(), key.clone(), rules))
            .await
            .map_err(NoWay::Cache)?;
        let enter = || values.loads.flights.enter(key);
        match answer {
            Answer::Value(item, left, unique, win) => {
                let value = values.open(Some(item)).map_err(NoWay::Cache)?;
                if let Some(rider) = rider {
                    rider.land(Landing::Found(value.clone()));
                }
                let Some(win) = win else {
                    let left = rules.fresh(left);
                    values.keep(front, key, &value, (left, unique), epoch);
                    return Ok(Way::Value(value));
                };
                return Ok(Way::Refresh(value, win));
            }
            Answer::Load(win) => {
                let rider = rider.unwrap_or_else(enter);
                rider.take_seat();
                return Ok(ride.won(key, rider, win).await);
            }
            Answer::LoadAlone => {
                let alone = rider.is_none();
                let rider = rider.unwrap_or_else(enter);
                if alone && let Some(way) = ride.board(&rider).await {
                    return way;
                }
                return Ok(Way::Load(rider, None));
            }
            Answer::Wait(at) => {
                let rider = rider.get_or_insert_with(enter);
                if let Some(landing) = front.until(at, rider.landed()).await {
                    return ride.shared(landing);
                }
            }
            Answer::GiveUp => return ride.late(),
        }
    }
}

/// One call's circumstances.
struct Ride<'a, F> {
    front: &'a F,
    begun: Instant,
    deadline: Instant,
}

impl<F: Front> Ride<'_, F> {
    /// Waits for the flight to land; `None` if this caller has the seat.
    async fn board(&self, rider: &Rider) -> Option<Result<Way, NoWay>> {
        match self.front.until(self.deadline, rider.board()).await {
            Some(Role::Pilot) => None,
            Some(Role::Passenger(landing)) => Some(self.shared(landing)),
            None => Some(self.late()),
        }
    }

    fn shared(&self, landing: Landing) -> Result<Way, NoWay> {
        match landing {
            Landing::Found(value) => {
                self.tell(Loaded::Shared);
                Ok(Way::Value(value))
            }
            Landing::Failed(words) => Err(NoWay::Elsewhere(words)),
        }
    }

    fn late(&self) -> Result<Way, NoWay> {
        self.tell(Loaded::Timeout);
        Err(NoWay::Timeout)
    }

    fn tell(&self, how: Loaded) {
        let took = self.front.now().saturating_duration_since(self.begun);
        self.front.values().tell_load(how, took);
    }

    /// The lease is won, and the first copy has no value. Another may have it: then it is carried over.
    async fn won(&self, key: &Arc<[u8]>, rider: Rider, win: Win) -> Way {
        if let Some((item, left)) = self.elsewhere(key).await
            && let Ok(value) = self.front.values().open(Some(item.clone()))
        {
            let (front, key) = (self.front.clone(), key.clone());
            let found = Landing::Found(value.clone());
            let carry = async move {
                store_raw(&front, &key, &item, win.spend().unique, left).await;
                rider.land(found);
            };
            self.front.finish(carry).await;
            return Way::Value(value);
        }
        Way::Load(rider, Some(win))
    }

    /// The value of `key` on another copy than the first, as it is stored, and the seconds it has left.
    async fn elsewhere(&self, key: &[u8]) -> Option<(Item, i64)> {
        let front = self.front;
        let options = &front.values().options;
        if !front.ring().has_others(key, front.now(), options) {
            return None;
        }
        let found = call(front, |context| {
            calls::get_with_ttl(context, vec![key], false)
        });
        let (item, left, _) = found.await.pop()?.ok()??;
        Some((item, left))
    }
}

/// Asks the node that decides. Frees the lease of a loader that seems to be dead, and asks again.
async fn ask<F: Front>(
    front: F,
    key: Arc<[u8]>,
    mut rules: Rules,
) -> Result<(Rules, Answer), Error> {
    let values = front.values();
    let costs = &values.loads.costs;
    loop {
        let chance = || front.ring().random();
        let (lease_s, recache_s) = rules.ask(costs.delta(&key), [chance(), chance()]);
        let asked = front.now();
        let leased = call(&front, |context| {
            calls::lease(context, &key, lease_s, recache_s)
        });
        let leased = match leased.await {
            Ok(leased) => leased,
            Err(error @ Error::Key(_)) => return Err(error),
            Err(error) => {
                log::debug!("asking for a lease: {error}");
                None
            }
        };
        let now = front.now();
        let wins = &values.loads.wins;
        let win = leased.as_ref().and_then(|(meta, unique)| match meta {
            meta if meta.won => Some(wins.won(
                &key,
                Lease {
                    unique: *unique,
                    since: asked,
                    time: rules.lease,
                    refresh: !meta.is_placeholder(),
                },
            )),
            meta if meta.won_by_other => wins.reclaim(&key, *unique),
            _ => None,
        });
        let seen = leased.as_ref().map(|(meta, unique)| {
            let placeholder = meta.is_placeholder();
            let won_by_other = meta.won_by_other && win.is_none();
            Seen {
                placeholder,
                won: win.is_some(),
                won_by_other,
                won_for: if won_by_other && !placeholder {
                    costs.lease_of_other(&key, unique.number, now)
                } else {
                    Duration::ZERO
                },
                mark: (packed::is_mark(&meta.value, meta.flags) && !meta.stale)
                    .then_some(meta.ttl.unwrap_or(-1)),
            }
        });
        let next = rules.answer(seen, now, chance());
        values.tell_lookup(matches!(next, Next::Use | Next::Refresh));
        let held = leased.map(|(meta, unique)| {
            let left = meta.ttl.unwrap_or(-1);
            (Item::new(meta.value, meta.flags), left, unique)
        });
        let answer = match (next, held, win) {
            (Next::TakeOver, Some((item, left, unique)), _) => {
                store_raw(&front, &key, &item, unique, left).await;
                continue;
            }
            (Next::Use, Some((item, left, unique)), win) => {
                win.map(Win::spend);
                Answer::Value(item, left, unique, None)
            }
            (Next::Refresh, Some((item, left, unique)), win) => {
                Answer::Value(item, left, unique, win)
            }
            (Next::Load, _, Some(win)) => Answer::Load(win),
            (Next::Wait(at), ..) => Answer::Wait(at),
            (Next::GiveUp, ..) => Answer::GiveUp,
            _ => Answer::LoadAlone,
        };
        return Ok((rules, answer));
    }
}

/// Stores an item as it came, if the one with this version is still there.
async fn store_raw<F: Front>(front: &F, key: &[u8], item: &Item, unique: CasUnique, left: i64) {
    // What expires now may as well live for one second more.
    let ttl = (left >= 0).then(|| Duration::from_secs(left.max(1).unsigned_abs()));
    let stored = call(front, |context| {
        calls::cas(context, key, item.into(), unique, ttl)
    });
    if let Err(error) = stored.await {
        log::debug!("a value was not carried over: {error}");
    }
}
