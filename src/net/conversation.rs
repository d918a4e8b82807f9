//! Whom a connection's client speaks with: a server, or a proxy.

use crate::auth::{Peer, Ticket};
use crate::clock::RelTime;
use crate::command::{Drive, Output, Session};
use crate::events::{Taken, Watch};
use crate::packing::{Packer, Unpacker};
use crate::proxy::{Desk, Owed, ProxySession};
use crate::settings::WireProtocol;
use crate::state::{ConnId, Ctx, Hold};

#[derive(Debug)]
pub(super) enum Conversation<'c> {
    Serve(Session<'c>),
    Proxy(Box<ProxySession<'c>>),
}

impl<'c> Conversation<'c> {
    /// One that begins, in an encoding that is allowed.
    pub(super) fn speaking(protocol: WireProtocol, with_proxy: bool) -> Self {
        Conversation::with(Session::speaking(protocol), with_proxy)
    }

    fn with(session: Session<'c>, with_proxy: bool) -> Self {
        match with_proxy {
            true => Conversation::Proxy(Box::new(ProxySession::around(session))),
            false => Conversation::Serve(session),
        }
    }

    /// Goes on with one that another process has written down: see [`Session::unpack`].
    pub(super) fn unpack(
        ctx: Ctx<'c>,
        peer: Peer,
        was_open: bool,
        from: &mut Unpacker<'_>,
    ) -> Option<Self> {
        let session = Session::unpack(ctx, peer, was_open, from)?;
        let with_proxy = ctx.shared.settings.proxy_config.is_some();
        Some(Conversation::with(session, with_proxy))
    }

    /// Writes it down for another process. Nodes owe it nothing.
    pub(super) fn pack(self, ctx: Ctx<'c>, out: &mut Output<'c>, to: &mut Packer) {
        match self {
            Conversation::Serve(session) => session.pack(ctx, out, to),
            Conversation::Proxy(session) => session.into_local(out).pack(ctx, out, to),
        }
    }

    /// Tells it the name of its connection.
    pub(super) fn is_named(&mut self, id: ConnId) {
        if let Conversation::Proxy(session) = self {
            session.is_named(id);
        }
    }

    /// What of it is spoken with the server itself.
    fn local(&self) -> &Session<'c> {
        match self {
            Conversation::Serve(session) => session,
            Conversation::Proxy(session) => session.local_ref(),
        }
    }

    fn local_mut(&mut self) -> &mut Session<'c> {
        match self {
            Conversation::Serve(session) => session,
            Conversation::Proxy(session) => session.local(),
        }
    }

    pub(super) fn comes_from(&mut self, peer: Peer) {
        self.local_mut().comes_from(peer);
    }

    /// What its client is owed by nodes, if it speaks with a proxy.
    pub(super) fn owed(&mut self) -> Option<&mut Owed<'c>> {
        match self {
            Conversation::Serve(_) => None,
            Conversation::Proxy(session) => Some(session.owed()),
        }
    }

    /// Notes what waits for a client who does not take his replies, of which this is next; false if all of them keep too much.
    pub(super) fn note_unread(
        &mut self,
        ctx: Ctx<'c>,
        hold: &mut Hold<'c>,
        next: Option<&Output<'c>>,
    ) -> bool {
        match self {
            // Beside items it is no more than one request may copy.
            Conversation::Serve(_) => {
                hold.waits_for(ctx, next.map_or(0, Output::pinned_bytes));
                true
            }
            Conversation::Proxy(session) => {
                let owed = session.owed().bytes();
                hold.keeps_for(ctx, next.map_or(0, |next| next.unsent_len() + owed))
            }
        }
    }

    /// True while replies of nodes are to come, or a request that is for them.
    #[inline(always)]
    pub(super) fn is_owed(&self) -> bool {
        matches!(self, Conversation::Proxy(session) if session.is_owed())
    }

    /// True if another process could not go on with it.
    pub(super) fn must_stay(&self) -> bool {
        matches!(self, Conversation::Proxy(session) if session.must_stay())
    }

    #[inline(always)]
    pub(super) fn drive(
        &mut self,
        ctx: Ctx<'c>,
        desk: Option<&mut Desk>,
        input: &[u8],
        budget: &mut u32,
        out: &mut Output<'c>,
    ) -> Drive {
        match (self, desk) {
            (Conversation::Proxy(session), Some(desk)) => {
                session.drive(ctx, desk, input, budget, out)
            }
            (Conversation::Serve(session), _) => session.drive(ctx, input, budget, out),
            (Conversation::Proxy(_), None) => unreachable!("a proxy's worker has a desk"),
        }
    }

    #[inline(always)]
    pub(super) fn spare(&mut self) -> Option<&mut [u8]> {
        match self {
            Conversation::Serve(session) => session.spare(),
            Conversation::Proxy(session) => session.spare(),
        }
    }

    #[inline]
    pub(super) fn advance(&mut self, n: usize) {
        match self {
            Conversation::Serve(session) => session.advance(n),
            Conversation::Proxy(session) => session.advance(n),
        }
    }

    pub(super) fn give_way(&mut self, ctx: Ctx<'c>) {
        match self {
            Conversation::Serve(session) => session.give_way(ctx),
            Conversation::Proxy(session) => session.give_way(ctx),
        }
    }

    #[inline(always)]
    pub(super) fn is_waiting_for_body(&self) -> bool {
        match self {
            Conversation::Serve(session) => session.is_waiting_for_body(),
            Conversation::Proxy(session) => session.is_waiting_for_body(),
        }
    }

    #[inline(always)]
    pub(super) fn has_own_work(&self) -> bool {
        match self {
            Conversation::Serve(session) => session.has_own_work(),
            Conversation::Proxy(session) => session.has_own_work(),
        }
    }

    /// What is to be watched: see [`Session::take_watch`].
    pub(super) fn take_watch(&mut self) -> Option<(Box<Watch>, Taken)> {
        self.local_mut().take_watch()
    }

    #[inline(always)]
    pub(super) fn is_dumping(&self) -> bool {
        self.local().is_dumping()
    }

    pub(super) fn see_to_dump(&mut self, now: RelTime, peer_has_replies: bool) -> bool {
        self.local_mut().see_to_dump(now, peer_has_replies)
    }

    /// True if the next input is likely to be one request for this server's own items.
    #[inline]
    pub(super) fn expects_one(&self) -> bool {
        matches!(self, Conversation::Serve(session) if session.expects_one())
    }

    pub(super) fn foresee(&mut self, ctx: Ctx<'c>, input: &[u8]) {
        if let Conversation::Serve(session) = self {
            session.foresee(ctx, input);
        }
    }

    pub(super) fn fetch_foreseen(&mut self, ctx: Ctx<'c>) {
        if let Conversation::Serve(session) = self {
            session.fetch_foreseen(ctx);
        }
    }

    pub(super) fn verification(&self) -> Option<&Ticket> {
        self.local().verification()
    }
}
