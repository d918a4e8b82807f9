//! One client's conversation with the proxy, without its socket.
//!
//! ```text
//!  input --> parse --> about a key:      way --> lane, or operation --> owed (replies.rs) --> output
//!                  '-> about the server, a refusal, a login: the session of a server, when nothing is owed
//! ```
//!
//! Se1. Replies leave in the order of the requests. What is answered here waits until all that was asked before is answered, or
//!      takes its place among that.
//! Se2. A request goes to a node when all of it has come: a client that is slow to send holds nobody up.
//! Se3. A client that is owed [`OWED_MAX`] replies, or does not take them, is not read from.
//! Se4. What an operation of several steps changes is done before the client's next request begins, and what one is reading is not
//!      changed by the same client before it has its reply.

mod coming;
mod judge;
mod many;
mod server;
mod step;

use bytes::Bytes;
use protocol::{
    AdminVerb, BinaryAdmin, BinaryVerb, ErrorLine, Parsed, Request, StoreMode, binary, reply, text,
};

use self::coming::Coming;
use self::step::{List, Step};
use super::course::Course;
use super::desk::{Desk, Way};
use super::frame::mark;
use super::relay::{self, Data};
use super::replies::{Owed, Spares};
use super::trace;
use super::verbs::{Job, is_no_reply};
use crate::auth::{Peer, Ticket};
use crate::command::{Drive, Next, Output, Session};
use crate::state::{ConnId, Ctx};

/// Replies that a client may be owed.
const OWED_MAX: usize = 256;
/// Bytes of them that may wait for it, or are to be expected.
const OWED_BYTES_MAX: usize = 1 << 20;
/// Keys under way that are remembered before it is looked which of them are read by now.
const UNDER_WAY_MAX: usize = 4 * OWED_MAX;

/// See the module.
#[derive(Debug)]
pub struct ProxySession<'c> {
    /// For what is no matter of the nodes.
    local: Session<'c>,
    owed: Owed<'c>,
    me: ConnId,
    coming: Option<Coming<'c>>,
    /// The rest of a long list of keys is to come.
    list: Option<List>,
    /// What was said of the request that is next, which waits.
    judged: Option<Result<(), ErrorLine>>,
    /// An operation of several steps is under way, whose reply is the last that is owed (Se4).
    is_serial: bool,
    /// Keys of operations that are under way, and go on for a while: the reply's number, the key's mark, and whether they change
    /// it (Se4).
    under_way: Vec<(u32, u32, bool)>,
    /// The peer is a proxy that leads back here.
    is_looped: bool,
}

impl<'c> ProxySession<'c> {
    /// A conversation that begins, or goes on where another process was, with what is no matter of the nodes.
    pub fn around(local: Session<'c>) -> Self {
        ProxySession {
            local: local.handing_over(),
            owed: Owed::new(),
            me: ConnId {
                slot: 0,
                generation: 0,
            },
            coming: None,
            list: None,
            judged: None,
            is_serial: false,
            under_way: Vec::new(),
            is_looped: false,
        }
    }

    /// Tells it the name of its connection, by which replies find it.
    pub fn is_named(&mut self, me: ConnId) {
        self.me = me;
    }

    /// What is left of it when nodes owe nothing; replies that have come go to `out`.
    pub fn into_local(mut self: Box<Self>, out: &mut Output<'c>) -> Session<'c> {
        self.owed.move_ready(out, &mut Spares::default());
        self.local
    }

    /// Tells where the peer comes from, by which wrong passwords are counted.
    pub fn comes_from(&mut self, peer: Peer) {
        self.local.comes_from(peer);
    }

    /// What it is owed, for who brings it. It is to have a turn afterwards.
    pub fn owed(&mut self) -> &mut Owed<'c> {
        &mut self.owed
    }

    /// The password that is being checked.
    pub fn verification(&self) -> Option<&Ticket> {
        self.local.verification()
    }

    /// True while replies have not come: its peer's end waits for them.
    pub fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    /// True in the midst of a request: of its replies, its data block, or its list of keys. What comes next would be taken for commands
    /// by whoever does not know of it.
    pub fn must_stay(&self) -> bool {
        self.is_owed() || self.coming.is_some() || self.list.is_some() || self.is_looped
    }

    /// Where the next bytes from the socket should go directly.
    pub fn spare(&mut self) -> Option<&mut [u8]> {
        self.coming.as_mut()?.room()
    }

    /// Notes that `n` bytes came there.
    pub fn advance(&mut self, n: usize) {
        if let Some(coming) = &mut self.coming {
            coming.advance(n);
        }
    }

    /// Ends a data block that holds what others need and does not move.
    pub fn give_way(&mut self, ctx: Ctx<'c>) {
        let is_binary = self.local.is_binary();
        if let Some(coming) = self.coming.as_mut().filter(|coming| coming.must_go()) {
            coming.refuse(ctx, is_binary);
            ctx.stats.general.blocks_given_way.inc();
        }
        self.local.give_way(ctx);
    }

    /// True in the middle of a data block.
    pub fn is_waiting_for_body(&self) -> bool {
        self.coming
            .as_ref()
            .is_some_and(|coming| !coming.is_whole())
            || self.local.is_waiting_for_body()
    }

    /// True if there is work to do without any input.
    pub fn has_own_work(&self) -> bool {
        let is_whole = self.coming.as_ref().is_some_and(Coming::is_whole);
        self.owed.is_ready() || is_whole || self.local.has_own_work()
    }

    /// For what is no matter of the nodes.
    pub fn local(&mut self) -> &mut Session<'c> {
        &mut self.local
    }

    /// The same, to look at.
    pub fn local_ref(&self) -> &Session<'c> {
        &self.local
    }

    /// Passes on what `input` holds, and gives out what has come. `budget` is counted down by a request each.
    pub fn drive(
        &mut self,
        ctx: Ctx<'c>,
        desk: &mut Desk,
        input: &[u8],
        budget: &mut u32,
        out: &mut Output<'c>,
    ) -> Drive {
        let mut at = 0;
        let before = *budget;
        let next = loop {
            // What was answered at once may have let others go.
            self.owed.move_ready(out, &mut desk.spares);
            if out.is_full() {
                break Next::Flush;
            }
            let rest = &input[at..];
            if let Some(coming) = &mut self.coming {
                at += coming.take(rest);
                coming.count(ctx, self.local.is_binary());
                if !coming.is_whole() {
                    break Next::Read;
                }
                if self.must_wait() || !self.pass_on_whole(desk, out) {
                    break Next::Answers;
                }
                continue;
            }
            if !self.local.awaits_command() {
                // What a refused store leaves is deleted before the refusal is told.
                if !self.owed.is_empty() {
                    break Next::Answers;
                }
                let drive = self.local.drive(ctx, rest, budget, out);
                at += drive.consumed;
                match drive.next {
                    Next::Command => continue,
                    next => break next,
                }
            }
            if rest.is_empty() && !self.is_looped {
                break Next::Read;
            }
            if *budget == 0 {
                break Next::Yield;
            }
            if self.is_looped {
                // Who leads here in a circle is told so, and left.
                if !self.local.is_binary() {
                    out.error(protocol::ErrorLine::ProxyLoop);
                }
                break Next::HangUp;
            }
            if self.must_wait() {
                break Next::Answers;
            }
            *budget -= 1;
            match self.step(ctx, desk, rest, out) {
                Step::Taken(n) => {
                    self.judged = None;
                    at += n;
                }
                Step::More => {
                    *budget += 1;
                    break Next::Read;
                }
                Step::Wait => {
                    *budget += 1;
                    break Next::Answers;
                }
            }
        };
        if before > *budget {
            desk.count_requests(u64::from(before - *budget));
        }
        Drive { consumed: at, next }
    }

    /// True if the next request has to wait for what is under way.
    fn must_wait(&mut self) -> bool {
        if self.owed.is_empty() {
            self.under_way.clear();
        } else if self.under_way.len() > UNDER_WAY_MAX {
            // Most of them have their replies.
            self.is_busy_with(None, true);
        }
        self.is_serial &= !self.owed.is_empty();
        let is_much = !self.owed.is_empty() && self.owed.expected_bytes() >= OWED_BYTES_MAX;
        self.is_serial || self.owed.len() >= OWED_MAX || is_much
    }

    /// The request at the start of `input`.
    fn step(&mut self, ctx: Ctx<'c>, desk: &mut Desk, input: &[u8], out: &mut Output<'c>) -> Step {
        let is_binary = self.local.is_binary();
        if !is_binary && self.list.is_none() && input.starts_with(b"proxy ") {
            return self.command(desk, input, out);
        }
        let parsed = match &self.list {
            Some(List { verb, any }) => text::parse_keys(*verb, *any, input),
            None if is_binary => binary::parse(input),
            None => text::parse(input),
        };
        let (request, consumed) = match parsed {
            Parsed::Incomplete => return Step::More,
            Parsed::Complete { request, consumed } => (request, consumed),
            refused => {
                let step = self.locally(ctx, refused, input, out);
                if let Step::Taken(_) = step {
                    self.list = None;
                }
                return step;
            }
        };
        if let Request::Get(_) | Request::BinaryGet(_) = &request
            && let Some(key) = request.key()
            && let Some(trace) = trace::of_key(key.text)
            && desk.traced(trace)
        {
            self.is_looped = true;
            return Step::Taken(consumed);
        }
        if let Request::Get(get) = &request {
            if get.single {
                if let Some(line) = self.judge(desk, &request) {
                    self.owed.reply(line.line(), out);
                    return Step::Taken(consumed);
                }
                return match self.pass_on(desk, &request, &input[..consumed], Data::Slice(b""), out)
                {
                    true => Step::Taken(consumed),
                    false => Step::Wait,
                };
            }
            if !self.get_many(desk, get.verb, get.keys, get.last, out) {
                return Step::Wait;
            }
            self.list = self.list_after(get.verb, get.keys, get.last);
            return Step::Taken(consumed);
        }
        let mut end = consumed;
        let mut data = Data::Slice(b"");
        if let Some(line) = self.judge(desk, &request) {
            return self.refuse(consumed, &request, line, out);
        }
        match &request {
            Request::Store(store) => {
                if store.value_len as usize > ctx.shared.settings.item_bytes_max {
                    return self.refuse_too_large(desk, consumed, store, out);
                }
                end += store.block_len() as usize;
                if input.len() < end {
                    let mut coming = Coming::new(ctx, input, end);
                    coming.count(ctx, is_binary);
                    self.coming = Some(coming);
                    return Step::Taken(input.len());
                }
                let block = &input[consumed..end];
                if !block.ends_with(store.block_end()) {
                    let mut refused = Output::new();
                    Session::bad_chunk(store, &mut refused);
                    self.owed.reply(&refused.buf, out);
                    return Step::Taken(end);
                }
                data = Data::Slice(block);
            }
            Request::MetaNoop => {
                self.owed.reply(reply::MN, out);
                return Step::Taken(consumed);
            }
            Request::BinaryAdmin(admin) if admin.verb == BinaryVerb::Noop => {
                let mut noop = Vec::with_capacity(binary::HEADER_LEN);
                binary::ok(&mut noop, admin.head, 0);
                self.owed.reply(&noop, out);
                return Step::Taken(consumed);
            }
            Request::BinaryAdmin(BinaryAdmin {
                verb: BinaryVerb::Stat(group),
                head,
            }) if is_of_items(group) => {
                self.stats(ctx, desk, group, Some(*head), out);
                return Step::Taken(consumed);
            }
            Request::Admin(admin)
                if admin.verb == AdminVerb::Stats && is_of_items(admin.args.0.trim_ascii()) =>
            {
                self.stats(ctx, desk, admin.args.0.trim_ascii(), None, out);
                return Step::Taken(consumed);
            }
            Request::BinaryAdmin(BinaryAdmin {
                verb: BinaryVerb::Flush(at),
                head,
            }) if ctx.shared.settings.flush_enabled => {
                let line = match *at {
                    protocol::Exptime::NEVER => "flush_all\r\n".to_owned(),
                    at => format!("flush_all {at}\r\n"),
                };
                // It goes by other lanes than packets, which would come later than it.
                if !self.owed.is_empty() {
                    return Step::Wait;
                }
                self.flush(desk, line.into(), Some(*head), true, out);
                return Step::Taken(consumed);
            }
            Request::Admin(admin)
                if admin.verb == AdminVerb::FlushAll && ctx.shared.settings.flush_enabled =>
            {
                let mut line = b"flush_all".to_vec();
                let mut words = admin.args.iter();
                let word = words.next();
                let good = word.is_none_or(|word| {
                    std::str::from_utf8(word).is_ok_and(|word| word.parse::<i32>().is_ok())
                });
                if !good || words.next().is_some() {
                    return self.locally(ctx, parsed, input, out);
                }
                if self.is_busy_with(None, true) {
                    return Step::Wait;
                }
                if let Some(word) = word {
                    line.push(b' ');
                    line.extend_from_slice(word);
                }
                line.extend_from_slice(b"\r\n");
                self.flush(desk, line.into(), None, !admin.noreply, out);
                return Step::Taken(consumed);
            }
            _ if request.key().is_none() => return self.locally(ctx, parsed, input, out),
            _ => {}
        }
        match self.pass_on(desk, &request, &input[..consumed], data, out) {
            true => Step::Taken(end),
            false => Step::Wait,
        }
    }

    /// A request that is no matter of the nodes: when nothing is owed any more.
    fn locally(
        &mut self,
        ctx: Ctx<'c>,
        parsed: Parsed<'_>,
        input: &[u8],
        out: &mut Output<'c>,
    ) -> Step {
        if !self.owed.is_empty() {
            return Step::Wait;
        }
        Step::Taken(self.local.one(ctx, parsed, input, out))
    }

    /// A store that came in pieces; false if it has to wait, which it does in its place.
    fn pass_on_whole(&mut self, desk: &mut Desk, out: &mut Output<'c>) -> bool {
        let Some(mut coming) = self.coming.take() else {
            return true;
        };
        if let Some(answer) = coming.refusal() {
            self.owed.reply(answer, out);
            return true;
        }
        let bytes = Bytes::from(std::mem::take(&mut coming.bytes));
        let parsed = match self.local.is_binary() {
            true => binary::parse(&bytes),
            false => text::parse(&bytes),
        };
        let Parsed::Complete { request, consumed } = parsed else {
            unreachable!("it was parsed before");
        };
        if let Request::Store(store) = &request
            && !bytes.ends_with(store.block_end())
        {
            let mut refused = Output::new();
            Session::bad_chunk(store, &mut refused);
            self.owed.reply(&refused.buf, out);
            return true;
        }
        let data = Data::Shared(bytes.slice(consumed..));
        let passed = self.pass_on(desk, &request, &bytes[..consumed], data, out);
        if !passed {
            // Nobody else has them: they stay where they are.
            coming.bytes = bytes.into();
            self.coming = Some(coming);
        }
        passed
    }

    /// Sends a request about one key on its way; false if that takes no more now. `line` is what it came as, without its block.
    #[inline]
    fn pass_on(
        &mut self,
        desk: &mut Desk,
        request: &Request<'_>,
        line: &[u8],
        data: Data<'_>,
        out: &mut Output<'c>,
    ) -> bool {
        let Some(key) = request.key() else {
            return true;
        };
        let mut room = protocol::KeyBuf::default();
        let bytes = key.bytes(&mut room);
        let reads = matches!(
            request,
            Request::Get(_) | Request::MetaGet(_) | Request::BinaryGet(_) | Request::MetaDebug(_)
        );
        let is_binary = self.local.is_binary();
        // What a refused store of a binary client leaves is deleted by a request in text.
        let is_packet = request.binary_head().is_some();
        let way = match request {
            // The client's core has no word for it.
            Request::MetaDebug(_) => desk.decider(bytes),
            _ => desk.way(bytes, !reads, is_binary),
        };
        match way {
            Way::Node(pool, node) => {
                let lane = desk.lane_to(pool, node, self.me, is_binary);
                if desk.is_full(lane, self.me) || self.is_changing(bytes) {
                    return false;
                }
                let from = desk.out(lane).buf.len();
                let shadowed = desk
                    .shadowed(bytes)
                    .map(|pool| (pool, job(is_packet, line, &data)));
                let uniques = desk.uniques_of(lane);
                let passed = match is_binary && !is_packet {
                    true => Some(relay::unheard_delete(desk.out(lane), bytes)),
                    false => relay::one(desk.out(lane), request, line, data, uniques),
                };
                let Some(passed) = passed else {
                    return true;
                };
                let number = match passed.no_reply {
                    true => 0,
                    false => self.owed.await_one(),
                };
                desk.passed(lane, passed, (self.me, number), None, from);
                desk.beside_of(bytes, request, shadowed);
            }
            Way::Core(place) => {
                let guides = desk.route(place.route).guides_writes();
                if self.is_busy_with(Some(bytes), !reads) || desk.is_busy(self.me) {
                    return false;
                }
                if reads || guides {
                    let way = (self.owed.next(), mark(bytes), !reads);
                    self.under_way.push(way);
                }
                let job = job(is_packet, line, &data);
                let shadowed = desk.shadowed(bytes).map(|pool| (pool, job.clone()));
                let course = desk.course(place);
                self.begin(desk, course, job, out);
                self.is_serial = is_decided(request);
                desk.beside_of(bytes, request, shadowed);
            }
            Way::Nowhere => {
                let mut refused = Output::new();
                match (request.binary_head(), is_no_reply(request)) {
                    (_, true) => {}
                    (Some(head), _) => {
                        binary::error(&mut refused.buf, head, protocol::ErrorLine::Backend.into());
                    }
                    (None, _) => {
                        let classic = matches!(request, Request::Get(_));
                        refused.bytes(desk.nowhere(classic, bytes));
                    }
                }
                self.owed.reply(&refused.buf, out);
            }
        }
        true
    }

    /// True while an operation changes this key, or reads it if that is to be changed; or any key.
    fn is_busy_with(&mut self, key: Option<&[u8]>, changes: bool) -> bool {
        if self.under_way.is_empty() {
            return false;
        }
        let owed = &self.owed;
        self.under_way.retain(|(number, ..)| owed.awaits(*number));
        match key.map(mark) {
            Some(mark) => {
                let mut all = self.under_way.iter();
                all.any(|(_, other, writes)| *other == mark && (changes || *writes))
            }
            None => !self.under_way.is_empty(),
        }
    }

    /// True while an operation of several steps changes this key.
    #[inline]
    fn is_changing(&mut self, key: &[u8]) -> bool {
        !self.under_way.is_empty() && self.is_busy_with(Some(key), false)
    }

    fn begin(&mut self, desk: &mut Desk, course: Course, job: Job, out: &mut Output<'c>) {
        let number = self.owed.await_one();
        if let Some(output) = desk.begin(course, job, (self.me, number)) {
            self.owed.answer_output(number, output, &mut desk.spares);
            self.owed.move_ready(out, &mut desk.spares);
        }
    }
}

/// A whole request, as an operation has it.
fn job(is_binary: bool, line: &[u8], data: &Data<'_>) -> Job {
    let whole = match data {
        Data::Slice(block) => [line, block].concat(),
        // The line stands before it in the same bytes, but is not to be had from them.
        Data::Shared(block) => [line, block].concat(),
    };
    match is_binary {
        true => Job::Packet(whole.into()),
        false => Job::Text(whole.into()),
    }
}

/// True for what a node decides before the others follow (Se4).
fn is_decided(request: &Request<'_>) -> bool {
    match request {
        Request::Store(store) => store.mode != StoreMode::Set || store.compare_cas.is_some(),
        Request::Get(_) | Request::BinaryGet(_) | Request::MetaGet(_) => false,
        _ => true,
    }
}

/// True for the groups of `stats` that nodes have more to say to than a proxy.
fn is_of_items(group: &[u8]) -> bool {
    matches!(group, b"" | b"items" | b"slabs")
}
