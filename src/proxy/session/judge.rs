//! Requests that are not passed on: of a user or a prefix that asks too much, of what is read only, and values that are too large.

use protocol::{
    AdminVerb, BinaryAdmin, BinaryVerb, Delete, ErrorLine, ReplyMode, Request, Store, StoreMode,
    binary, text,
};

use super::ProxySession;
use super::step::Step;
use crate::command::Output;
use crate::proxy::desk::Desk;
use crate::proxy::relay::Data;
use crate::proxy::verbs::{changes_something, is_no_reply};

impl<'c> ProxySession<'c> {
    /// Why a request is refused. It is asked once a request, however often that waits.
    #[inline]
    pub(super) fn judge(&mut self, desk: &Desk, request: &Request<'_>) -> Option<ErrorLine> {
        if !desk.judges() {
            return None;
        }
        if let Some(judged) = self.judged {
            return judged.err();
        }
        let judged = self.judge_anew(desk, request);
        self.judged = Some(judged.map_or(Ok(()), Err));
        judged
    }

    fn judge_anew(&self, desk: &Desk, request: &Request<'_>) -> Option<ErrorLine> {
        let user = self.local.user();
        let Some(key) = request.key() else {
            let flushes = match request {
                Request::Admin(admin) => admin.verb == AdminVerb::FlushAll,
                Request::BinaryAdmin(BinaryAdmin { verb, .. }) => {
                    matches!(verb, BinaryVerb::Flush(_))
                }
                _ => false,
            };
            return flushes.then(|| desk.judge_flush(user)).flatten();
        };
        let mut room = protocol::KeyBuf::default();
        let key = key.bytes(&mut room);
        let (changes, deletes) = match request {
            Request::Get(get) => (get.verb.touch.is_some(), false),
            Request::BinaryGet(get) => (get.touch.is_some(), false),
            Request::MetaGet(get) => (changes_something(get), false),
            Request::MetaDebug(_) => (false, false),
            Request::Delete(_) => (true, true),
            _ => (true, false),
        };
        desk.judge(user, &[key], changes, deletes)
    }

    /// The same of a list of keys, each of which counts.
    pub(super) fn judge_list(
        &mut self,
        desk: &Desk,
        keys: &[&[u8]],
        changes: bool,
    ) -> Option<ErrorLine> {
        if !desk.judges() {
            return None;
        }
        if let Some(judged) = self.judged {
            return judged.err();
        }
        let judged = desk.judge(self.local.user(), keys, changes, false);
        self.judged = Some(judged.map_or(Ok(()), Err));
        judged
    }

    /// Answers a request that is refused; its block, if it has one, is read and forgotten.
    pub(super) fn refuse(
        &mut self,
        consumed: usize,
        request: &Request<'_>,
        line: ErrorLine,
        out: &mut Output<'c>,
    ) -> Step {
        if let Request::Store(store) = request {
            if !self.owed.is_empty() {
                return Step::Wait;
            }
            self.local.refuse(store, line, out);
            return Step::Taken(consumed);
        }
        let flush_is_silent = matches!(request, Request::Admin(admin) if admin.noreply);
        match request.binary_head() {
            Some(head) => {
                let mut refused = Vec::with_capacity(binary::HEADER_LEN);
                binary::error(&mut refused, head, line.into());
                self.owed.reply(&refused, out);
            }
            None if is_no_reply(request) || flush_is_silent => {}
            None => self.owed.reply(line.line(), out),
        }
        Step::Taken(consumed)
    }

    /// A store whose block no node is sent. As it does on a server, it takes the old value with it.
    pub(super) fn refuse_too_large(
        &mut self,
        desk: &mut Desk,
        consumed: usize,
        store: &Store<'_>,
        out: &mut Output<'c>,
    ) -> Step {
        if !self.owed.is_empty() {
            return Step::Wait;
        }
        let delete = Request::Delete(Delete {
            key: store.key,
            compare_cas: None,
            new_cas: None,
            invalidate: false,
            touch: None,
            drop_value: false,
            client_flags: 0,
            reply: ReplyMode::NoReply,
        });
        if store.mode == StoreMode::Set && store.compare_cas.is_none() && !store.key.needs_base64()
        {
            let mut line = Vec::new();
            text::write_delete(&mut line, store.key.text, true);
            self.pass_on(desk, &delete, &line, Data::Slice(b""), out);
        }
        self.local.refuse(store, ErrorLine::TooLarge, out);
        Step::Taken(consumed)
    }
}
