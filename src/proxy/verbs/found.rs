//! Reads over the pools of a route.
//!
//! ```text
//!  keys --> the pool, a split key by one of its names --failed--> gutter pool
//!              | missed                                  | missed: a miss
//!              |--> the key itself, if it was another name: hit --> that name is given a copy
//!              '--> warm pool: hit --> the pool is given it (add); if the warm pool has another value then, that is taken back
//! ```
//!
//! Fo1. A value that is brought over from a warm pool is looked at there once more. Who changes a key changes it in the warm pool first:
//!      so either the look sees that, or the change in the pool itself comes after the add.

use client_core::error::Error;
use client_core::operation::{Command, Entry, Hit, Read, Recache, Write};
use client_core::options::Reads;
use client_core::request::{StoreMode, Wanted};
use client_core::value::{Item, Payload};
use protocol::{Exptime, KEY_LEN_MAX};

use super::answers::exptime;
use super::serving::{Serving, cut};
use crate::proxy::course::Warm;
use crate::proxy::file::Split;

/// A value, with its CAS unique as clients are told it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) item: Item,
    pub(super) cas: u64,
    pub(super) ttl: Option<i64>,
    pub(super) recache: Recache,
}

pub(super) type Finding = Result<Option<Found>, Error>;

/// What has come of a key that a pool lacks.
enum Brought {
    Nothing,
    /// It was in the warm pool, and is in the other one now.
    Hit(Hit),
    /// It was there after all, or is there now with another value.
    Opposed,
}

impl Serving<'_> {
    /// Reads keys, as their route says.
    pub(super) async fn read(&self, keys: &[&[u8]], wanted: Wanted) -> Vec<Finding> {
        let names = match &self.course.split {
            Some(split) if wanted.is_value_only() => self.names(keys, *split),
            _ => Vec::new(),
        };
        let mut found = match names.is_empty() {
            true => self.read_here(keys, wanted).await,
            false => {
                let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
                self.read_here(&names, wanted).await
            }
        };
        if !names.is_empty() {
            self.read_by_key(keys, &names, wanted, &mut found).await;
        }
        self.read_gutter(keys, wanted, &mut found).await;
        if let Some(warm) = &self.course.warm {
            self.read_warm(warm, keys, wanted, &mut found).await;
        }
        found
    }

    /// Reads keys in this pool alone.
    async fn read_here(&self, keys: &[&[u8]], wanted: Wanted) -> Vec<Finding> {
        let hits = self.hits(keys.to_vec(), wanted).await.into_iter();
        let found = |hit: Hit| Found {
            cas: match wanted.cas {
                true => self.unique(hit.cas, hit.node),
                false => 0,
            },
            item: hit.item,
            ttl: hit.ttl,
            recache: hit.recache,
        };
        hits.map(|hit| Ok(hit?.map(found))).collect()
    }

    async fn hits(&self, keys: Vec<&[u8]>, wanted: Wanted) -> Vec<Result<Option<Hit>, Error>> {
        let mut context = self.context();
        if wanted.cas && context.options.reads != Reads::First {
            // The unique is worth something on the node alone that decides.
            let options = (*context.options).clone();
            context.options = options.reads(Reads::First).into();
        }
        let read = self.carry(Read::new(context, keys, wanted)).await;
        read.finish().collect()
    }

    /// One of the names of each key, by chance.
    fn names(&self, keys: &[&[u8]], split: Split) -> Vec<Vec<u8>> {
        let any = |key: &&[u8]| {
            let at = self.over.now.ring.random() % u64::from(split.names);
            name(key, at as u32).unwrap_or_else(|| key.to_vec())
        };
        keys.iter().map(any).collect()
    }

    /// Reads those by their key that other names lack, and gives these a copy.
    async fn read_by_key(
        &self,
        keys: &[&[u8]],
        names: &[Vec<u8>],
        wanted: Wanted,
        found: &mut [Finding],
    ) {
        let is_lacking = |at: &usize| keys[*at] != names[*at] && !matches!(found[*at], Ok(Some(_)));
        let lacking: Vec<usize> = (0..keys.len()).filter(is_lacking).collect();
        if lacking.is_empty() {
            return;
        }
        let asked: Vec<&[u8]> = lacking.iter().map(|&at| keys[at]).collect();
        let wanted = Wanted {
            ttl: true,
            ..wanted
        };
        let by_key = self.read_here(&asked, wanted).await;
        let (mut entries, mut exptimes) = (Vec::new(), Vec::new());
        let ttl = self.course.split.map_or(1, |split| split.ttl_s);
        for (&at, one) in lacking.iter().zip(&by_key) {
            if let (Ok(Some(hit)), Ok(None)) = (one, &found[at]) {
                entries.push(Entry {
                    key: &names[at],
                    value: payload(&hit.item),
                });
                let left = Exptime::from(i64::from(self.exptime_of(hit.ttl)));
                exptimes.push(exptime(cut(left, ttl, self.seat.unix_s())));
            }
        }
        if !entries.is_empty() {
            let write = Write::each_until(self.context(), entries, StoreMode::Add, exptimes);
            self.carry(write).await;
        }
        for (at, one) in lacking.into_iter().zip(by_key) {
            found[at] = one;
        }
    }

    /// Reads those in the gutter pool whose nodes did not answer.
    async fn read_gutter(&self, keys: &[&[u8]], wanted: Wanted, found: &mut [Finding]) {
        let Some((gutter, ttl)) = self.gutter() else {
            return;
        };
        // A node that is owed a delete of a key is not asked for it, and may miss what the gutter pool has.
        let owes = |key: &[u8]| {
            let (now, options) = (self.seat.now(), &self.over.options);
            self.over.now.ring.readers(key, now, options).owing
        };
        let is_failed = |at: &usize| match &found[*at] {
            Err(error) => error.is_unavailable(),
            Ok(None) => owes(keys[*at]),
            Ok(Some(_)) => false,
        };
        let failed: Vec<usize> = (0..keys.len()).filter(is_failed).collect();
        if failed.is_empty() {
            return;
        }
        let asked: Vec<&[u8]> = failed.iter().map(|&at| keys[at]).collect();
        let unix_s = self.seat.unix_s();
        let cut = |touch: i32| exptime(cut(Exptime::from(i64::from(touch)), ttl, unix_s));
        let wanted = Wanted {
            touch: wanted.touch.map(cut),
            ..wanted
        };
        let there = self.at(gutter).read_here(&asked, wanted).await;
        self.in_gutter(asked.len());
        for (at, one) in failed.into_iter().zip(there) {
            found[at] = one;
        }
    }

    /// Reads those in the pool of before that this one lacks.
    async fn read_warm(&self, warm: &Warm, keys: &[&[u8]], wanted: Wanted, found: &mut [Finding]) {
        let is_missing = |at: &usize| matches!(found[*at], Ok(None));
        let missing: Vec<usize> = (0..keys.len()).filter(is_missing).collect();
        if missing.is_empty() {
            return;
        }
        let asked: Vec<&[u8]> = missing.iter().map(|&at| keys[at]).collect();
        let brought = self.bring_over(warm, &asked, wanted.touch).await;
        let mut again = Vec::new();
        for (&at, brought) in missing.iter().zip(brought) {
            match brought {
                Brought::Nothing => {}
                Brought::Hit(hit) if !wanted.cas => {
                    let ttl = wanted.touch.map_or(hit.ttl, |touch| match touch {
                        0 => Some(-1),
                        touch => Some(touch.into()),
                    });
                    found[at] = Ok(Some(Found {
                        item: hit.item,
                        cas: 0,
                        ttl,
                        recache: hit.recache,
                    }));
                }
                // The unique is that of the pool it is in now.
                Brought::Hit(_) | Brought::Opposed => again.push(at),
            }
        }
        if !again.is_empty() {
            let asked: Vec<&[u8]> = again.iter().map(|&at| keys[at]).collect();
            let there = self.read_here(&asked, wanted).await;
            for (at, one) in again.into_iter().zip(there) {
                found[at] = one;
            }
        }
    }

    /// Has this pool given what it lacks and the one before has. True if the key is there then, as far as that is known.
    pub(super) async fn bring_one_over(&self, warm: &Warm, key: &[u8]) -> bool {
        let brought = self.bring_over(warm, &[key], None).await;
        !matches!(brought[..], [Brought::Nothing])
    }

    async fn bring_over(&self, warm: &Warm, keys: &[&[u8]], touch: Option<i32>) -> Vec<Brought> {
        let there = self.at(&warm.over);
        let wanted = Wanted {
            cas: true,
            ttl: true,
            ..Wanted::default()
        };
        let hits = there.hits(keys.to_vec(), wanted).await;
        let (mut places, mut entries, mut exptimes) = (Vec::new(), Vec::new(), Vec::new());
        for (at, hit) in hits.iter().enumerate() {
            if let Ok(Some(hit)) = hit {
                places.push(at);
                entries.push(Entry {
                    key: keys[at],
                    value: payload(&hit.item),
                });
                exptimes.push(touch.unwrap_or_else(|| self.exptime_of(hit.ttl)));
            }
        }
        let mut brought: Vec<Brought> = keys.iter().map(|_| Brought::Nothing).collect();
        if places.is_empty() {
            return brought;
        }
        let found = places.len() as u64;
        self.course.control.count_warm_hits(found);
        let write = Write::each_until(self.context(), entries, StoreMode::Add, exptimes);
        let written: Vec<_> = self.carry(write).await.finish().collect();
        let names: Vec<&[u8]> = places.iter().map(|&at| keys[at]).collect();
        let looked = there.hits(names, wanted).await;
        let mut outdated = Vec::new();
        let both = written.into_iter().zip(looked);
        for (&at, (written, looked)) in places.iter().zip(both) {
            let Ok(Some(hit)) = &hits[at] else {
                continue;
            };
            let is_same = matches!(&looked, Ok(Some(now)) if now.cas == hit.cas);
            brought[at] = match written {
                Ok(written) if written.opposed => Brought::Opposed,
                _ if !is_same => {
                    outdated.push(Entry::key(keys[at]));
                    Brought::Opposed
                }
                _ => Brought::Hit(hit.clone()),
            };
        }
        if !outdated.is_empty() {
            let delete = Command::Delete { compare: None };
            self.carry(Write::new(self.context(), outdated, delete))
                .await;
        }
        brought
    }
}

/// A name of a key; the first is the key itself. None if it would be too long.
pub(super) fn name(key: &[u8], at: u32) -> Option<Vec<u8>> {
    let mut name = key.to_vec();
    if at > 0 {
        name.extend_from_slice(format!("#split{at}").as_bytes());
    }
    (name.len() <= KEY_LEN_MAX).then_some(name)
}

fn payload(item: &Item) -> Payload<'_> {
    Payload {
        bytes: &item.value,
        flags: item.flags,
    }
}
