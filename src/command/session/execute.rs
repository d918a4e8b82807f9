//! What each request leads to: the one place where requests are told apart.
//!
//! What is needed before that (its key, its data block) the request says itself, so that a new command is known to all when
//! it has an arm here.

use protocol::{
    Admin, BinaryAdmin, ConfigSet, ErrorLine, Fault, Get, Key, Request, Sasl, Status, Store, binary,
};

use super::ahead::Plan;
use super::body::{self, Body};
use super::config_body::ConfigBody;
use super::sign_in::SignIn;
use super::{Session, State};
use crate::cache::Probe;
use crate::command::admin;
use crate::command::dump::Running;
use crate::command::output::Output;
use crate::command::owed::AdminOutcome;
use crate::command::storage::{self, Data};
use crate::command::{arithmetic, delete, meta, retrieval};
use crate::state::Ctx;

impl<'c> Session<'c> {
    /// Executes a request; gives where in `input` to go on.
    #[inline]
    pub(super) fn execute(
        &mut self,
        ctx: Ctx<'c>,
        request: &Request<'_>,
        plan: &Plan,
        input: &[u8],
        out: &mut Output<'c>,
    ) -> usize {
        let probe_of = |key: Key<'_>| {
            plan.probe()
                .unwrap_or_else(|| retrieval::probe_of(ctx, key))
        };
        match request {
            Request::Get(get) => {
                let Some(probe) = plan.probe() else {
                    return self.get(ctx, get, input, plan.end, out);
                };
                retrieval::get_one(ctx, get.verb, probe.of(get.keys.0), true, out);
            }
            Request::Store(store) => self.store(ctx, store, probe_of(store.key), plan, input, out),
            Request::MetaGet(get) => meta::get(ctx, get, probe_of(get.key), out),
            Request::Delete(delete) => delete::execute(ctx, delete, probe_of(delete.key), out),
            Request::Arith(arith) => arithmetic::execute(ctx, arith, probe_of(arith.key), out),
            Request::Touch(touch) => retrieval::touch(ctx, touch, probe_of(touch.key), out),
            Request::MetaDebug(key) => {
                ctx.observer.note_other();
                meta::debug(ctx, *key, probe_of(*key), out);
            }
            Request::MetaNoop => {
                ctx.observer.note_other();
                out.bytes(protocol::reply::MN);
            }
            Request::BinaryGet(get) => retrieval::get_binary(ctx, get, probe_of(get.key), out),
            Request::Admin(admin) => {
                ctx.observer.note_other();
                self.admin(ctx, admin, out);
            }
            Request::BinaryAdmin(admin) => {
                ctx.observer.note_other();
                self.admin_binary(ctx, admin, out);
            }
            Request::Sasl(sasl) => self.sign_in_again(ctx, sasl, out),
            Request::ConfigSet(set) => self.begin_config(ctx, set, out),
        }
        plan.end
    }

    /// A store: at once if its block is there.
    #[inline(always)]
    fn store(
        &mut self,
        ctx: Ctx<'c>,
        store: &Store<'_>,
        probe: Probe,
        plan: &Plan,
        input: &[u8],
        out: &mut Output<'c>,
    ) {
        // Only a plan has looked whether it is.
        if plan.ahead.is_none() {
            return self.begin_store(ctx, store, probe, &input[..plan.block], out);
        }
        let (value, end) = input[plan.block..plan.end].split_at(store.value_len as usize);
        if end == store.block_end() {
            storage::execute(ctx, store, probe, Data::Bytes(value), out);
        } else {
            body::bad_chunk(store, out);
        }
    }

    /// A store whose block is not all there. It was read from `head`.
    fn begin_store(
        &mut self,
        ctx: Ctx<'c>,
        store: &Store<'_>,
        probe: Probe,
        head: &[u8],
        out: &mut Output<'c>,
    ) {
        match Body::begin(ctx, (self.wire, head), store, probe) {
            Ok(body) => self.state = State::Body(body),
            Err(answer) => self.refuse_block(store.value_len, store.block_len(), answer, out),
        }
    }

    /// A block that is not wanted. Of one that nobody can mean no byte is waited for; what comes may be commands or not.
    pub(super) fn refuse_block(
        &mut self,
        value_len: u32,
        block_len: u64,
        answer: Option<Fault>,
        out: &mut Output<'c>,
    ) {
        if value_len > protocol::ITEM_LEN_MAX {
            out.answer(answer);
            self.state = State::Lost;
        } else {
            self.state = State::Swallow(block_len, answer);
        }
    }

    /// A node list, which always comes as a body.
    fn begin_config(&mut self, ctx: Ctx<'c>, set: &ConfigSet<'_>, out: &mut Output<'c>) {
        let begun = if self.datagram {
            Err(ErrorLine::NotOverUdp)
        } else {
            ConfigBody::begin(ctx, set)
        };
        match begun {
            Ok(body) => self.state = State::Config(Box::new(body)),
            Err(error) => {
                let answer = (!set.noreply).then_some(Fault::Line(error));
                self.refuse_block(set.value_len, set.block_len(), answer, out);
            }
        }
    }

    /// A key list; if the output fills up, the rest of it is left for later.
    fn get(
        &mut self,
        ctx: Ctx<'c>,
        get: &Get<'_>,
        input: &[u8],
        end: usize,
        out: &mut Output<'c>,
    ) -> usize {
        let keys = get.keys.0;
        let done = retrieval::get(ctx, get.verb, get.keys, out);
        if done < keys.len() {
            self.state = State::Keys(get.verb, true);
            return keys.as_ptr().addr() - input.as_ptr().addr() + done;
        }
        if get.last {
            out.bytes(protocol::reply::END);
        } else {
            self.state = State::Keys(get.verb, !keys.is_empty());
        }
        end
    }

    fn admin(&mut self, ctx: Ctx<'c>, request: &Admin<'_>, out: &mut Output<'c>) {
        if self.datagram && admin::needs_stream(request) {
            if !request.noreply {
                out.error(ErrorLine::NotOverUdp);
            }
            return;
        }
        let outcome = admin::execute(ctx, request, out);
        self.owe(ctx, outcome, out);
    }

    fn admin_binary(&mut self, ctx: Ctx<'c>, request: &BinaryAdmin<'_>, out: &mut Output<'c>) {
        if self.datagram && admin::needs_stream_binary(request) {
            return binary::error(&mut out.buf, request.head, ErrorLine::NotOverUdp.into());
        }
        let outcome = admin::execute_binary(ctx, request, out);
        self.owe(ctx, outcome, out);
    }

    /// Whoever signs in anew is nobody until that is done.
    fn sign_in_again(&mut self, ctx: Ctx<'c>, sasl: &Sasl<'_>, out: &mut Output<'c>) {
        if ctx.shared.auth.is_some() {
            if let Some(sign_in) = SignIn::again(sasl, out) {
                self.state = State::SignIn(Box::new(sign_in));
            }
            return;
        }
        let answer = Fault::Status(sasl.head, Status::UnknownCommand);
        self.state = State::Swallow(sasl.body_len.into(), Some(answer));
    }

    /// Takes on what a command about the server leaves to its connection.
    fn owe(&mut self, ctx: Ctx<'c>, outcome: AdminOutcome, out: &mut Output<'c>) {
        match outcome {
            AdminOutcome::Done => {}
            AdminOutcome::Close => self.state = State::Closing,
            AdminOutcome::Dump(dump) if self.datagram => dump.refuse(ErrorLine::NotOverUdp, out),
            AdminOutcome::Dump(dump) => {
                if let Some(running) = Running::begin(ctx, dump, out) {
                    self.state = State::Dump(Box::new(running));
                }
            }
            AdminOutcome::Watch(watch, place) => self.state = State::Watch(watch, place),
            AdminOutcome::Report(report) => self.state = State::Report(Box::new(report)),
        }
    }
}
