//! Lists of keys: each node is asked once, and values come in the order of the keys.

use protocol::{ErrorLine, GetVerb, Keys, reply};

use super::ProxySession;
use super::step::List;
use crate::command::Output;
use crate::proxy::desk::{Desk, Place, Way};
use crate::proxy::frame::mark;
use crate::proxy::relay;
use crate::proxy::replies::Gather;
use crate::proxy::verbs::Job;

/// Who is asked for some of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A lane, for keys of a route.
    Lane(usize, usize),
    /// The client's core.
    Core(Place),
}

impl<'c> ProxySession<'c> {
    /// A list of keys, or a piece of one; false if it has to wait.
    pub(super) fn get_many(
        &mut self,
        desk: &mut Desk,
        verb: GetVerb,
        keys: Keys<'_>,
        is_last: bool,
        out: &mut Output<'c>,
    ) -> bool {
        let writes = verb.touch.is_some();
        let keys: Vec<&[u8]> = keys.iter().collect();
        let is_whole = is_last && self.list.is_none();
        if keys.is_empty() && is_whole {
            self.owed.reply(reply::END, out);
            return true;
        }
        if let Some(line) = self.judge_list(desk, &keys, writes) {
            self.refuse_list(line, is_last, desk, out);
            return true;
        }
        let mut parts: Vec<Part> = Vec::with_capacity(8);
        let mut order = Vec::with_capacity(keys.len());
        let mut failure = None;
        let ways = desk.ways(&keys, writes);
        for (&key, &(way, route)) in keys.iter().zip(&ways) {
            let part = match way {
                Way::Node(pool, node) => {
                    let lane = desk.lane_to(pool, node, self.me, false);
                    if desk.is_full(lane, self.me) || self.is_changing(key) {
                        return false;
                    }
                    Part::Lane(lane, route)
                }
                Way::Core(place) => {
                    if self.is_changing(key) {
                        return false;
                    }
                    Part::Core(place)
                }
                Way::Nowhere => {
                    let line = desk.nowhere(true, key);
                    failure = failure.or((line != reply::END).then_some(line));
                    continue;
                }
            };
            let place = parts.iter().position(|other| *other == part);
            let place = place.unwrap_or_else(|| {
                parts.push(part);
                parts.len() - 1
            });
            order.push((mark(key), place as u16));
        }
        let is_one = is_whole && parts.len() == 1 && order.len() == keys.len();
        let of_parts: Vec<u16> = order.iter().map(|(_, part)| *part).collect();
        let asked: Vec<&[u8]> = match order.len() == keys.len() {
            true => keys,
            // Those that have a way.
            false => {
                let has_way = |(_, way): &(_, &(Way, usize))| !matches!(way.0, Way::Nowhere);
                let ways = keys.into_iter().zip(&ways).filter(has_way);
                ways.map(|(key, _)| key).collect()
            }
        };
        let number = match is_one {
            true => self.owed.await_one(),
            false => {
                let gather = Gather::new(order, parts.len(), is_last, failure);
                self.owed.await_parts(gather, &mut desk.spares)
            }
        };
        for (at, part) in parts.into_iter().enumerate() {
            let keys = asked.iter().zip(&of_parts);
            let keys = keys.filter(|(_, part)| usize::from(**part) == at);
            let keys = keys.map(|(key, _)| *key);
            let place = (!is_one).then_some(at as u16);
            match part {
                Part::Lane(lane, _) => {
                    let from = desk.out(lane).buf.len();
                    let out = desk.out(lane);
                    relay::get_verb(out, verb);
                    keys.for_each(|key| relay::get_key(out, key));
                    out.bytes(reply::CRLF);
                    desk.passed(lane, relay::several(verb), (self.me, number), place, from);
                }
                Part::Core(core) => {
                    let keys: Vec<&[u8]> = keys.collect();
                    let marks = keys.iter().map(|key| (number, mark(key), writes));
                    self.under_way.extend(marks);
                    let keys = keys.join(&b' ').into();
                    let is_last = true;
                    let job = Job::Keys {
                        verb,
                        keys,
                        is_last,
                    };
                    let course = desk.course(core);
                    desk.begin_part(course, job, (self.me, number, place), &mut self.owed);
                }
            }
        }
        self.owed.move_ready(out, &mut desk.spares);
        for key in asked {
            let job = || {
                let keys = key.to_vec().into();
                let is_last = true;
                Job::Keys {
                    verb,
                    keys,
                    is_last,
                }
            };
            desk.shadow(key, job);
        }
        true
    }

    /// Answers a list of keys, or a piece of one, with this line. Of a list in pieces the last tells.
    fn refuse_list(
        &mut self,
        line: ErrorLine,
        is_last: bool,
        desk: &mut Desk,
        out: &mut Output<'c>,
    ) {
        if is_last && self.list.is_none() {
            return self.owed.reply(line.line(), out);
        }
        let gather = Gather::new(Vec::new(), 0, is_last, Some(line.line()));
        self.owed.await_parts(gather, &mut desk.spares);
        self.owed.move_ready(out, &mut desk.spares);
    }

    /// What is to be known of a list of which more is to come.
    pub(super) fn list_after(&self, verb: GetVerb, keys: Keys<'_>, is_last: bool) -> Option<List> {
        let any = self.list.as_ref().is_some_and(|list| list.any) || keys.iter().next().is_some();
        (!is_last).then_some(List { verb, any })
    }
}
