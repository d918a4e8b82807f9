//! One connection's side of the conversation, without its socket.
//!
//! ```text
//!                                 +--> Body        a store's data block is coming        --+
//!                                 +--> Keys        the rest of a long key list           --+
//!    |                            +--> Config      a node list is coming                  --+
//!  Start --+----------> Command --+--> Swallow     bytes of a refused store, or a line   --+--> Command
//!    |     +-> SignIn --^         +--> Dump        a dump in progress                    --+
//!    |                            +--> Watch       to be handed over, for good
//!    |            if there are users; only the right password leads on (sign_in.rs); a Report is like a Dump
//!    +- its first byte tells whether a connection speaks text or binary, and that stays
//! ```
//!
//! D1. Replies leave in the order of the requests, one for each that wants one, however the input was cut.
//! D2. A drive ends when the input is used up, the output is full, or the budget of commands is spent, which a batch may
//!     overrun: no connection keeps a worker. The rest of a long list of keys counts for as many commands as it is long.
//! D3. What is not consumed must be given again, with more behind it.

use protocol::{ErrorLine, Fault, GetVerb, Parsed, Skip, Status, Store, binary, text};

use self::ahead::{Batch, Plan};
use self::body::{Body, Fed};
use self::config_body::ConfigBody;
use self::sign_in::{SignIn, Step};
use self::wire::Wire;
use super::dump::{Running, Stepped};
use super::output::Output;
use super::report;
use super::sights;
use super::storage;
use crate::auth::{Peer, Ticket, Visitor};
use crate::cache::Ahead;
use crate::clock::RelTime;
use crate::events::{Audience, Taken, Watch};
use crate::settings::WireProtocol;
use crate::state::Ctx;

mod ahead;
mod body;
mod config_body;
mod execute;
mod pack;
mod sign_in;
#[cfg(test)]
mod tests;
mod wire;

pub use self::wire::{Drive, Next};

/// What `-R` takes for the length of a command at least; so many bytes of a list of keys count for one.
pub const COMMAND_BYTES: usize = 200;

#[derive(Debug)]
enum State<'c> {
    /// The first byte will tell the encoding, if both are allowed.
    Start(WireProtocol),
    SignIn(Box<SignIn>),
    Command,
    /// Whether a key was among the pieces so far.
    Keys(GetVerb, bool),
    Body(Box<Body<'c>>),
    Config(Box<ConfigBody<'c>>),
    /// So many bytes of a refused block, and the answer, if one is wanted. It follows them, as in memcached: a client that
    /// writes all before it reads would take an earlier one for that of its next request, or close half-way.
    Swallow(u64, Option<Fault>),
    SwallowLine,
    Dump(Box<Running<'c>>),
    Report(Box<report::Running>),
    /// Waits to be handed over.
    Watch(Box<Watch>, Taken),
    Closing,
    /// Where the next request begins is not known.
    Lost,
}

/// The conversation.
#[derive(Debug)]
pub struct Session<'c> {
    state: State<'c>,
    /// It ends with its first input.
    datagram: bool,
    /// Commands are another's: a drive stops before each.
    hands_over: bool,
    /// The last input was one whole request about one key.
    lone: bool,
    /// The key of the request that the input to come begins with, if that was read ahead.
    foreseen: Option<Ahead>,
    wire: Wire,
    /// Who shows a password, where one is needed.
    visitor: Option<Box<Visitor>>,
}

impl Default for Session<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'c> Session<'c> {
    /// A conversation that begins, in either encoding.
    pub fn new() -> Self {
        Session::speaking(WireProtocol::Auto)
    }

    /// A conversation that begins, in an encoding that is allowed.
    pub fn speaking(protocol: WireProtocol) -> Self {
        Session {
            state: State::Start(protocol),
            wire: Wire::Text,
            datagram: false,
            hands_over: false,
            lone: false,
            foreseen: None,
            visitor: None,
        }
    }

    /// A conversation of which another has the commands, once the peer may give any ([`Next::Command`]). Those that it does not
    /// want are executed here one by one ([`Session::one`]).
    pub fn handing_over(mut self) -> Self {
        self.hands_over = true;
        self
    }

    /// True if the next input is a command, for whom it was handed over to.
    pub fn awaits_command(&self) -> bool {
        matches!(self.state, State::Command)
    }

    /// True if packets are spoken.
    pub fn is_binary(&self) -> bool {
        self.wire == Wire::Binary
    }

    /// Executes the command at the start of `input`, of which the parser said so, or answers what it refused; gives the bytes done with.
    pub fn one(
        &mut self,
        ctx: Ctx<'c>,
        parsed: Parsed<'_>,
        input: &[u8],
        out: &mut Output<'c>,
    ) -> usize {
        self.parsed(ctx, parsed, input, out)
    }

    /// Refuses a store whose line was taken: its block is read and forgotten, and then it is told.
    pub fn refuse(&mut self, store: &Store<'_>, error: ErrorLine, out: &mut Output<'c>) {
        let answer = storage::fault(store, error);
        self.refuse_block(store.value_len, store.block_len(), answer, out);
    }

    /// What is answered to a store that is refused.
    pub fn refusal(store: &Store<'_>, error: ErrorLine, out: &mut Output<'_>) {
        out.answer(storage::fault(store, error));
    }

    /// Who has signed in, if anybody has.
    pub fn user(&self) -> Option<&[u8]> {
        self.visitor.as_ref()?.user()
    }

    /// Answers a store whose block does not end where it should.
    pub fn bad_chunk(store: &Store<'_>, out: &mut Output<'_>) {
        body::bad_chunk(store, out);
    }

    /// Tells where the peer comes from, by which wrong passwords are counted.
    pub fn comes_from(&mut self, peer: Peer) {
        self.visitor = Some(Box::new(Visitor::new(peer)));
    }

    /// A conversation that consists of one datagram. Commands that need a stream behind them are refused: dumps and
    /// `watch`; so is all that changes the server or flushes it, as nobody can tell who sent it. It asks for no password:
    /// there is no UDP where one is needed.
    pub fn of_datagram(protocol: WireProtocol) -> Self {
        Session {
            datagram: true,
            ..Session::speaking(protocol)
        }
    }

    /// Answers what is left incomplete when no input will come any more: `unread` is what no drive consumed. A store
    /// whose block has not come whole changes nothing.
    pub fn end_of_datagram(&mut self, unread: &[u8], out: &mut Output<'c>) {
        match std::mem::replace(&mut self.state, State::Closing) {
            State::Body(body) => body.refuse_short(out),
            State::Swallow(_, answer) => out.answer(answer),
            State::Command | State::Keys(..) if !unread.is_empty() => match self.wire {
                Wire::Text => out.error(ErrorLine::Error),
                Wire::Binary => refuse_packet(unread, Status::InvalidArguments, out),
            },
            _ => {}
        }
    }

    /// Answers the requests in `data` that their replies were too large for the datagrams they may fill.
    pub fn refuse_reply(&self, data: &[u8], out: &mut Output<'c>) {
        match self.wire {
            Wire::Text => out.error(ErrorLine::ReplyTooLarge),
            Wire::Binary => refuse_packet(data, Status::TooLarge, out),
        }
    }

    /// True once the peer may use the cache: nothing is asked of it, or it has shown a password.
    pub fn is_authenticated(&self) -> bool {
        !matches!(self.state, State::Start(_) | State::SignIn(_))
    }

    /// The password that is being checked, while the session waits for it.
    #[inline]
    pub fn verification(&self) -> Option<&Ticket> {
        match &self.state {
            State::SignIn(sign_in) => sign_in.verification(),
            _ => None,
        }
    }

    /// Where the next bytes from the socket should go directly, if the connection is in the middle of a value.
    #[inline]
    pub fn spare(&mut self) -> Option<&mut [u8]> {
        match &mut self.state {
            State::Body(body) => body.spare(),
            _ => None,
        }
    }

    /// Notes that `n` bytes came into [`Session::spare`].
    #[inline]
    pub fn advance(&mut self, n: usize) {
        if let State::Body(body) = &mut self.state {
            body.advance(n);
        }
    }

    /// Ends a data block that holds what others need and does not move. The rest of it is swallowed, and then answered.
    pub fn give_way(&mut self, ctx: Ctx<'c>) {
        let given_way = match &self.state {
            State::Body(body) => body.give_way(ctx),
            State::Config(body) => body.give_way(),
            _ => None,
        };
        if let Some((left, answer)) = given_way {
            self.state = State::Swallow(left, answer);
            ctx.stats.general.blocks_given_way.inc();
        }
    }

    /// True if a command is in progress that waits for input or output.
    #[inline(always)]
    pub fn is_waiting_for_body(&self) -> bool {
        match &self.state {
            State::Command => false,
            State::Body(_) | State::Config(_) | State::Swallow(..) => true,
            State::SignIn(sign_in) => sign_in.is_waiting_for_body(),
            _ => false,
        }
    }

    /// True if there is work to do without any input.
    #[inline(always)]
    pub fn has_own_work(&self) -> bool {
        match &self.state {
            State::Command => false,
            State::Dump(_) | State::Report(_) | State::Watch(..) => true,
            _ => self.verification().is_some(),
        }
    }

    /// What is to be watched, when a drive has ended with [`Next::Watch`]; the conversation is over.
    pub fn take_watch(&mut self) -> Option<(Box<Watch>, Taken)> {
        match std::mem::replace(&mut self.state, State::Closing) {
            State::Watch(watch, place) => Some((watch, place)),
            _ => None,
        }
    }

    /// True while a dump is in progress: [`Session::see_to_dump`] is to be called once a second.
    #[inline]
    pub fn is_dumping(&self) -> bool {
        matches!(self.state, State::Dump(_))
    }

    /// Has the dump in progress lend its place, if its peer has had replies to take for too long. True if it has none and
    /// is to try for one, by a drive.
    pub fn see_to_dump(&mut self, now: RelTime, peer_has_replies: bool) -> bool {
        let State::Dump(dump) = &mut self.state else {
            return false;
        };
        if peer_has_replies {
            dump.lend_place(now);
        }
        dump.has_no_place() && !peer_has_replies
    }

    /// True if the next input is likely to be one request about one key, as the last was. Where there are more, they find
    /// what they need by themselves.
    #[inline]
    pub fn expects_one(&self) -> bool {
        self.lone && matches!(self.state, State::Command)
    }

    /// Looks what the first request of `input` is about, which the next drive is to begin with. What it needs is asked for
    /// in two steps: its bucket here, its item by [`Session::fetch_foreseen`], when the bucket has come.
    pub fn foresee(&mut self, ctx: Ctx<'c>, input: &[u8]) {
        let (mut parsed, mut plan) = (Parsed::Incomplete, Plan::default());
        self.wire.parse(input, &mut parsed);
        plan.make(ctx, &parsed, input, 0, None);
        self.foreseen = plan.ahead;
    }

    /// Asks for the item of the request that was foreseen, if one was.
    pub fn fetch_foreseen(&mut self, ctx: Ctx<'c>) {
        if let Some(ahead) = &mut self.foreseen {
            ahead.step(ctx.cache);
        }
    }

    /// Executes what `input` holds. `budget` is the number of commands that may run, at least 1; it is counted down, to
    /// 0 also by a batch that was longer.
    pub fn drive(
        &mut self,
        ctx: Ctx<'c>,
        input: &[u8],
        budget: &mut u32,
        out: &mut Output<'c>,
    ) -> Drive {
        let mut at = 0;
        let next = loop {
            if out.is_full() {
                break Next::Flush;
            }
            let rest = &input[at..];
            if !matches!(self.state, State::Command) {
                let (taken, stopped) = self.go_on(ctx, rest, budget, out);
                at += taken;
                match stopped {
                    Some(next) => break next,
                    None => continue,
                }
            }
            if rest.is_empty() {
                break Next::Read;
            }
            if self.hands_over {
                break Next::Command;
            }
            if *budget == 0 {
                break Next::Yield;
            }
            let consumed = self.commands(ctx, rest, budget, out);
            if consumed == 0 && matches!(self.state, State::Command) && !out.is_full() {
                break Next::Read;
            }
            self.lone &= at == 0 && consumed == input.len();
            at += consumed;
        };
        Drive { consumed: at, next }
    }

    /// A step of what is not between two commands; gives the bytes of `input` done with, and why a drive ends here, if it
    /// does. By itself, so that commands pass none of it.
    #[inline(never)]
    fn go_on(
        &mut self,
        ctx: Ctx<'c>,
        input: &[u8],
        budget: &mut u32,
        out: &mut Output<'c>,
    ) -> (usize, Option<Next>) {
        let stop = |next| (0, Some(next));
        match &mut self.state {
            State::Closing => stop(Next::Close),
            State::Lost => stop(Next::HangUp),
            State::Watch(..) => stop(Next::Watch),
            State::SignIn(sign_in) => {
                let visitor = self.visitor.get_or_insert_default();
                let (taken, step) = sign_in.step(ctx, visitor, input, budget, out);
                match step {
                    Step::On => {}
                    Step::Stop(next) => return (taken, Some(next)),
                    Step::SignedIn => self.state = State::Command,
                }
                (taken, None)
            }
            State::Dump(_) | State::Report(_) if *budget == 0 => stop(Next::Yield),
            State::Dump(dump) => {
                match dump.step(ctx, out) {
                    Stepped::More => {}
                    Stepped::Done => self.state = State::Command,
                    Stepped::NoPlace => return stop(Next::Place),
                }
                // Others' requests come between two steps.
                *budget = 0;
                (0, None)
            }
            State::Report(report) => {
                *budget -= 1;
                if report.step(ctx, out) {
                    self.state = State::Command;
                }
                (0, None)
            }
            // Even without input: what was read straight into the chunk may have filled it.
            State::Body(body) => {
                let (taken, fed) = body.feed(ctx, input, out);
                (taken, self.fed(fed))
            }
            State::Swallow(left, answer) => {
                let taken = input
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left > 0 {
                    return (taken, Some(Next::Read));
                }
                out.answer(*answer);
                self.state = State::Command;
                (taken, None)
            }
            _ if input.is_empty() => stop(Next::Read),
            State::Config(body) => {
                let (taken, fed) = body.feed(ctx, input, out);
                (taken, self.fed(fed))
            }
            State::Start(protocol) => {
                self.wire = match protocol {
                    WireProtocol::Auto if input[0] == binary::MAGIC_REQUEST => Wire::Binary,
                    WireProtocol::Auto | WireProtocol::Ascii => Wire::Text,
                    WireProtocol::Binary => Wire::Binary,
                };
                self.state = match &ctx.shared.auth {
                    Some(_) => State::SignIn(Box::new(SignIn::new(self.wire))),
                    None => State::Command,
                };
                (0, None)
            }
            State::Keys(..) if *budget == 0 => stop(Next::Yield),
            State::Keys(verb, any) => {
                let any = *any;
                let parsed = text::parse_keys(*verb, any, input);
                if matches!(parsed, Parsed::Incomplete) {
                    return stop(Next::Read);
                }
                self.state = State::Command;
                let taken = self.parsed(ctx, parsed, input, out);
                *budget = budget.saturating_sub(1 + (taken / COMMAND_BYTES) as u32);
                if let State::Keys(_, any_now) = &mut self.state {
                    *any_now |= any;
                }
                (taken, None)
            }
            State::SwallowLine => match input.iter().position(|&byte| byte == b'\n') {
                Some(end) => {
                    self.state = State::Command;
                    (end + 1, None)
                }
                None => (input.len(), None),
            },
            State::Command => (0, None),
        }
    }

    /// What comes behind a piece of a data block; why a drive ends here, if it does.
    fn fed(&mut self, fed: Fed) -> Option<Next> {
        match fed {
            Fed::More => return Some(Next::Read),
            Fed::Done => self.state = State::Command,
            Fed::Refused(left, answer) => self.state = State::Swallow(left, answer),
        }
        None
    }

    /// Executes one request, or a batch if there are more; gives the bytes done with, 0 if the first is incomplete.
    #[inline]
    fn commands(
        &mut self,
        ctx: Ctx<'c>,
        input: &[u8],
        budget: &mut u32,
        out: &mut Output<'c>,
    ) -> usize {
        let (mut parsed, mut plan) = (Parsed::Incomplete, Plan::default());
        self.wire.parse(input, &mut parsed);
        if matches!(parsed, Parsed::Incomplete) {
            return 0;
        }
        let planned = plan.make(ctx, &parsed, input, 0, self.foreseen.take());
        self.lone = false;
        let is_shown =
            matches!(self.wire, Wire::Text) && ctx.cache.events().audience().has(Audience::RAWCMDS);
        if is_shown {
            sights::raw(ctx, input);
        }
        match &parsed {
            Parsed::Complete { request, .. } if planned => {
                if plan.end < input.len() && *budget > 1 && !is_shown {
                    return self.batch(ctx, (parsed, plan), input, budget, out);
                }
                *budget -= 1;
                if let Some(ahead) = &mut plan.ahead {
                    self.lone = true;
                    ahead.step(ctx.cache);
                }
                self.execute(ctx, request, &plan, input, out)
            }
            _ => {
                *budget -= 1;
                self.parsed(ctx, parsed, input, out)
            }
        }
    }

    /// Parses ahead, prefetches, executes. By itself, so that one request does without its room.
    #[inline(never)]
    fn batch(
        &mut self,
        ctx: Ctx<'c>,
        first: (Parsed<'_>, Plan),
        input: &[u8],
        budget: &mut u32,
        out: &mut Output<'c>,
    ) -> usize {
        let mut batch = Batch::after(first);
        let end = batch.read(ctx, self.wire, input);
        batch.fetch(ctx);
        let count = batch.count;
        for (done, (request, plan)) in batch.requests().enumerate() {
            let at = self.execute(ctx, request, plan, input, out);
            let interrupted = !matches!(self.state, State::Command);
            if interrupted || (out.is_full() && done + 1 < count) {
                *budget = budget.saturating_sub(done as u32 + 1);
                return at;
            }
        }
        *budget = budget.saturating_sub(count as u32);
        end
    }

    /// Handles whatever the parser said; gives the bytes of `input` done with.
    fn parsed(
        &mut self,
        ctx: Ctx<'c>,
        parsed: Parsed<'_>,
        input: &[u8],
        out: &mut Output<'c>,
    ) -> usize {
        match parsed {
            Parsed::Incomplete => 0,
            Parsed::HangUp => {
                self.state = State::Lost;
                input.len()
            }
            Parsed::Invalid {
                error,
                quiet,
                consumed,
                skip,
            } => {
                let answer = (!quiet).then_some(error);
                if let Skip::Bytes(bytes) = skip {
                    self.state = State::Swallow(bytes, answer);
                    return consumed;
                }
                out.answer(answer);
                match skip {
                    Skip::Line => self.state = State::SwallowLine,
                    Skip::All => self.state = State::Lost,
                    Skip::None | Skip::Bytes(_) => {}
                }
                consumed
            }
            Parsed::Complete { request, consumed } => {
                self.execute(ctx, &request, &Plan::of(consumed), input, out)
            }
        }
    }
}

/// Answers the packet at the start of `data` with an error, if its header is there to tell whose answer it is.
fn refuse_packet(data: &[u8], status: Status, out: &mut Output<'_>) {
    if let Some(head) = binary::head(data) {
        binary::error(&mut out.buf, head, status);
    }
}
