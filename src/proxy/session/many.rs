//! Lists of keys: each node is asked once, and values come in the order of the keys.

use protocol::{GetVerb, Keys, reply};

use super::ProxySession;
use crate::command::Output;
use crate::proxy::desk::{Desk, Way};
use crate::proxy::frame::mark;
use crate::proxy::relay;
use crate::proxy::replies::Gather;
use crate::proxy::verbs::Job;

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
        // Keys of one kind of way are asked for together; most lists have but one.
        let writes = verb.touch.is_some();
        let ways: Vec<(&[u8], Way)> = keys
            .iter()
            .map(|key| (key, desk.way(key, writes)))
            .collect();
        if ways.is_empty() {
            if is_last {
                self.owed.reply(reply::END, out);
            }
            return true;
        }
        for (_, way) in &ways {
            if let Way::Node(pool, node) = *way {
                let lane = desk.lane_to(pool, node, self.me, false);
                if desk.is_full(lane, self.me) {
                    return false;
                }
            }
        }
        let kind = |way: &Way| match way {
            Way::Core(pool) => Some(*pool),
            _ => None,
        };
        let runs: Vec<_> = ways
            .chunk_by(|(_, one), (_, other)| kind(one) == kind(other))
            .collect();
        let count = runs.len();
        for (at, run) in runs.into_iter().enumerate() {
            let is_last = is_last && at + 1 == count;
            match kind(&run[0].1) {
                Some(pool) => {
                    let keys: Vec<&[u8]> = run.iter().map(|(key, _)| *key).collect();
                    let number = self.owed.next();
                    self.reading
                        .extend(keys.iter().map(|key| (number, mark(key))));
                    let keys = keys.join(&b' ').into();
                    let job = Job::Keys {
                        verb,
                        keys,
                        is_last,
                    };
                    self.begin(desk, pool, job, out);
                }
                None => self.gather(desk, verb, run, is_last, out),
            }
        }
        true
    }

    /// Keys that live on one node each, asked of all these nodes.
    fn gather(
        &mut self,
        desk: &mut Desk,
        verb: GetVerb,
        run: &[(&[u8], Way)],
        is_last: bool,
        out: &mut Output<'c>,
    ) {
        let mut lanes: Vec<usize> = Vec::with_capacity(8);
        let mut order = Vec::with_capacity(run.len());
        for &(key, way) in run {
            let Way::Node(pool, node) = way else {
                continue;
            };
            let lane = desk.lane_to(pool, node, self.me, false);
            let part = match lanes.iter().position(|&other| other == lane) {
                Some(part) => part,
                None => {
                    lanes.push(lane);
                    relay::get_verb(desk.out(lane), verb);
                    lanes.len() - 1
                }
            };
            relay::get_key(desk.out(lane), key);
            order.push((mark(key), part as u16));
        }
        let is_whole = order.len() == run.len();
        if lanes.is_empty() {
            let (key, _) = run[0];
            let refused = desk.nowhere(true, key);
            // Of a list in pieces the last tells.
            if is_last {
                self.owed.reply(refused, out);
            }
            return;
        }
        let passed = relay::several();
        if let [lane] = lanes[..]
            && is_last
            && is_whole
        {
            desk.out(lane).bytes(reply::CRLF);
            let number = self.owed.await_one();
            return desk.passed(lane, passed, (self.me, number), None);
        }
        let number = self
            .owed
            .await_parts(Gather::new(order, lanes.len(), is_last));
        for (part, lane) in lanes.into_iter().enumerate() {
            desk.out(lane).bytes(reply::CRLF);
            desk.passed(lane, passed, (self.me, number), Some(part as u16));
        }
    }
}
