//! Changes over the pools of a route.
//!
//! ```text
//!  warm pool first: the same store, or a delete --> the pool itself --failed--> gutter pool, with a short time to live
//!                                                        |
//!                                                        '--> other names of a key that is split; pools that are told deletes
//! ```
//!
//! Gd1. What is changed in the pool is changed in a warm one before (Fo1 of found.rs).
//! Gd2. Where a gutter pool takes a change, the nodes that do not have it are owed a delete of the key: what was there before does not
//!      come back with them. And as long as the gutter pool may hold something, what is changed is deleted there.

use bytes::Bytes;
use client_core::operation::{Command, Entry, Write};
use client_core::request::StoreMode;
use client_core::value::Payload;
use protocol::{ErrorLine, MetaGet, Request, Store, binary};

use super::answers::{Out, exptime, has, is_no_reply, only};
use super::found::name;
use super::serving::{Said, Serving, cut};
use crate::proxy::carry::Over;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// It asks, for more than the core has a word for.
    Looks,
    /// The same whatever is there.
    Sets,
    Deletes,
    /// It depends on what is there, which it may make.
    Creates,
    Changes,
}

impl Deed {
    pub(super) fn of(request: &Request<'_>) -> Self {
        use protocol::StoreMode::{Add, Set};
        match request {
            Request::Store(store) if store.compare_cas.is_some() || store.invalidate => {
                Deed::Changes
            }
            Request::Store(store) => match store.mode {
                Set => Deed::Sets,
                Add => Deed::Creates,
                _ if store.vivify.is_some() => Deed::Creates,
                _ => Deed::Changes,
            },
            Request::Delete(delete)
                if delete.compare_cas.is_some() || delete.invalidate || delete.drop_value =>
            {
                Deed::Changes
            }
            Request::Delete(_) => Deed::Deletes,
            Request::Arith(arith) if arith.vivify.is_some() => Deed::Creates,
            Request::MetaGet(get) if get.vivify.is_some() => Deed::Creates,
            Request::MetaGet(get) if !changes_something(get) => Deed::Looks,
            _ => Deed::Changes,
        }
    }
}

/// True if the core has no operation for it.
pub(super) fn is_asked(get: &MetaGet<'_>) -> bool {
    !only(get.tokens, b"vfctskOqbT")
}

/// True if more than the time of its last access is changed.
pub(in crate::proxy) fn changes_something(get: &MetaGet<'_>) -> bool {
    let made = get.touch.is_some() || get.vivify.is_some() || get.recache.is_some();
    made || has(get.tokens, b'E')
}

impl<'a> Serving<'a> {
    /// A request that is no plain read, as the route of its key says.
    pub(super) async fn change(
        &self,
        request: &Request<'_>,
        key: &[u8],
        value: Bytes,
        out: &mut Out,
    ) {
        let (course, deed) = (self.course, Deed::of(request));
        // What a delete came to in the warm pool.
        let (mut before, mut was_before) = (Out::new(), false);
        if let Some(warm) = &course.warm {
            match deed {
                // It is to be found there.
                Deed::Creates | Deed::Looks => {
                    self.bring_one_over(warm, key).await;
                }
                Deed::Sets if warm.keeps => {
                    let there = self.at(&warm.over);
                    there
                        .one(request, key, value.clone(), &mut Out::new())
                        .await;
                }
                Deed::Sets => self.at(&warm.over).delete_all(&[key]).await,
                Deed::Deletes => {
                    let there = self.at(&warm.over);
                    there.one(request, key, Bytes::new(), &mut before).await;
                    was_before = self.said.get() == Said::Done;
                }
                Deed::Changes => {}
            }
        }
        self.one(request, key, value.clone(), out).await;
        if let Some(warm) = &course.warm
            && deed == Deed::Changes
            && self.said.get() == Said::Missing
            && self.bring_one_over(warm, key).await
        {
            out.clear();
            self.one(request, key, value.clone(), out).await;
        }
        let said = self.said.get();
        if was_before && said == Said::Missing {
            *out = before;
        }
        if deed == Deed::Looks && said != Said::Unavailable {
            return;
        }
        if let Some((gutter, ttl)) = self.gutter() {
            if said == Said::Unavailable {
                self.owe(key);
                let there = Serving {
                    ttl_max: Some(ttl),
                    ..self.at(gutter)
                };
                out.clear();
                there.one(request, key, value.clone(), out).await;
                self.in_gutter(1);
            } else if let Some(route) = &course.route
                && route.has_gutter_items(self.seat.now())
            {
                self.at(gutter).delete_all(&[key]).await;
            }
        }
        if let Some(warm) = &course.warm
            && matches!(deed, Deed::Creates | Deed::Changes)
            && said == Said::Done
        {
            self.at(&warm.over).delete_all(&[key]).await;
        }
        self.change_names(request, deed, key, &value).await;
        for over in &course.deletes {
            self.at(over).delete_all(&[key]).await;
        }
        self.tell_others(request, key, out).await;
    }

    /// A request in this pool alone.
    async fn one(&self, request: &Request<'_>, key: &[u8], value: Bytes, out: &mut Out) {
        self.note(Said::Refused);
        match request {
            Request::Store(store) => self.store(store, key, value, out).await,
            Request::Delete(delete) => self.delete(delete, key, out).await,
            Request::Arith(arith) => self.count(arith, key, out).await,
            Request::Touch(touch) => self.touch(touch, key, out).await,
            Request::MetaGet(get) => {
                let asked = (get.want_value, changes_something(get));
                self.ask("mg", (get.key, key), get.tokens, None, asked, out)
                    .await;
            }
            // No other comes here.
            _ => out.error(ErrorLine::Backend),
        }
    }

    /// Deletes a key.
    pub(super) async fn forget(&self, key: &[u8]) {
        self.delete_all(&[key]).await;
    }

    /// Deletes keys, whatever is there.
    async fn delete_all(&self, keys: &[&[u8]]) {
        self.deletes_all(keys).await;
    }

    /// The same; true if all nodes that have them have answered.
    async fn deletes_all(&self, keys: &[&[u8]]) -> bool {
        let entries = keys.iter().map(|key| Entry::key(key)).collect();
        let delete = Command::Delete { compare: None };
        let write = self
            .carry(Write::new(self.context(), entries, delete))
            .await;
        write.finish().all(|written| written.is_ok())
    }

    /// The gutter pool, and how long what is stored there lives at most.
    pub(super) fn gutter(&self) -> Option<(&'a Over, u32)> {
        let route = self.course.route.as_ref()?;
        Some((self.course.gutter.as_ref()?, route.spec.gutter?.ttl_s))
    }

    /// Notes that the gutter pool is used.
    pub(super) fn in_gutter(&self, requests: usize) {
        self.course.control.count_gutter(requests as u64);
        if let Some(route) = &self.course.route {
            route.falls_into_gutter(self.seat.now());
        }
    }

    /// The nodes that a key lives on are to delete it before they are asked for it again (Gd2).
    fn owe(&self, key: &[u8]) {
        let (now, options) = (self.seat.now(), &self.over.options);
        let ring = &self.over.now.ring;
        // Those that are ejected are told by this itself.
        for node in ring.writers(key, now, options).iter() {
            ring.members[node].missed(key, now, options);
        }
    }

    /// The other names of a key that is split: a value that was set is set there too, any other change deletes there.
    async fn change_names(&self, request: &Request<'_>, deed: Deed, key: &[u8], value: &Bytes) {
        let Some(split) = self.course.split else {
            return;
        };
        let names: Vec<Vec<u8>> = (1..split.names).filter_map(|at| name(key, at)).collect();
        let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
        match request {
            Request::Store(store) if deed == Deed::Sets && self.said.get() == Said::Done => {
                let Store {
                    client_flags: flags,
                    ..
                } = *store;
                let value = Payload {
                    bytes: value,
                    flags,
                };
                let entries = names.iter().map(|key| Entry { key, value }).collect();
                let exptime = exptime(cut(store.exptime, split.ttl_s, self.seat.unix_s()));
                let mode = StoreMode::Set;
                let command = Command::Store { mode, exptime };
                self.carry(Write::new(self.context(), entries, command))
                    .await;
            }
            _ => self.delete_all(&names).await,
        }
    }

    /// Pools that are told deletes, and waited for: one that cannot be told is an error.
    async fn tell_others(&self, request: &Request<'_>, key: &[u8], out: &mut Out) {
        let Some(route) = &self.course.route else {
            return;
        };
        if !route.tells(request) {
            return;
        }
        let mut all = true;
        for over in &self.course.told {
            self.course.control.count_fan_out();
            all &= self.at(over).deletes_all(&[key]).await;
        }
        if !all {
            out.clear();
            match request.binary_head() {
                Some(head) => binary::error(&mut out.buf, head, ErrorLine::Backend.into()),
                None if is_no_reply(request) => {}
                None => out.error(ErrorLine::Backend),
            }
        }
    }
}
