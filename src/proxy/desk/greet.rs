//! The first words on a connection to a node, and traces of other proxies.

use std::sync::atomic::Ordering::Relaxed;

use client_core::request;

use super::Desk;
use super::parts::ms;
use crate::proxy::frame::Shape;
use crate::proxy::lane::{Owner, Replies, Ticket};
use crate::proxy::trace;
use crate::state::ConnId;

impl Desk {
    /// The first words on a connection: a login, and a trace of this proxy.
    #[cold]
    pub(super) fn greet(&mut self, at: usize) {
        let (lane, now_ms) = (&mut self.lanes[at], self.now_ms);
        let options = &lane.pool.options;
        let due_ms = now_ms + ms(options.attempt_timeout + options.connect_timeout);
        if let Some(login) = &options.login
            && !lane.binary
        {
            lane.out
                .bytes(&request::login(&login.user, &login.password));
            self.control.counts.active.fetch_add(1, Relaxed);
            lane.tickets.push_back(Ticket {
                replies: Replies::One(Shape::Line),
                owner: Owner::Login,
                due_ms,
                read: (0, 0),
                watch: None,
            });
        }
        self.put_trace(at, self.control.id, 1);
    }

    /// Puts a trace into a lane, by which proxies notice that they lead back to themselves.
    fn put_trace(&mut self, at: usize, id: u64, hops: u32) {
        let lane = &mut self.lanes[at];
        let options = &lane.pool.options;
        let due_ms = self.now_ms + ms(options.attempt_timeout + options.connect_timeout);
        let shape = match lane.binary {
            true => {
                trace::packet(&mut lane.out.buf, id, hops);
                Shape::Packet
            }
            false => {
                trace::line(&mut lane.out.buf, id, hops);
                Shape::Values
            }
        };
        self.push(at, Replies::One(shape), Owner::Nobody, due_ms);
    }

    /// A trace has come from a client. True if it has come in a circle, or too far.
    pub(in crate::proxy) fn traced(&mut self, (id, hops): (u64, u32)) -> bool {
        if id == self.control.id || hops > trace::HOPS_MAX {
            self.control.counts.loops.fetch_add(1, Relaxed);
            log::error!("proxy: proxies lead to each other in a circle: who does is not served");
            return true;
        }
        if self.control.passes(id) {
            let nobody = ConnId {
                slot: 0,
                generation: 0,
            };
            for pool in 0..self.views.len() {
                for node in 0..self.views[pool].now.ring.members.len() {
                    let lane = self.lane_to(pool, node, nobody, false);
                    self.out(lane);
                    self.put_trace(lane, id, hops + 1);
                }
            }
        }
        false
    }
}
