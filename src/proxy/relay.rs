//! A request as it is passed on to one node, whose reply goes back as it comes.
//!
//! Classic commands are written anew from what the parser made of them, so that a node which reads lines more freely sees what was
//! meant here, and nothing else. Quiet requests are passed on loud, and what was not to be heard is left out of the replies: so each
//! request has its reply, by which the next is known.

use bytes::Bytes;
use protocol::binary::{HEADER_LEN, MAGIC_REQUEST, loud};
use protocol::{Exptime, GetVerb, MetaTokens, ReplyMode, Request, Store, StoreMode, reply, text};

use super::frame::{Shape, mark};
use super::lane::Hush;
use super::replies::LARGE;
use super::uniques::Uniques;
use crate::command::Output;

/// What is to be known of the reply to a request that was passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) shape: Shape,
    pub(super) hush: Hush,
    pub(super) mark: u32,
    pub(super) reads: bool,
    /// No reply is wanted.
    pub(super) no_reply: bool,
    /// The reply may show a CAS unique, which is the node's.
    pub(super) shows_unique: bool,
}

impl Passed {
    fn line() -> Self {
        Passed {
            shape: Shape::Line,
            hush: Hush::Nothing,
            mark: 0,
            reads: false,
            no_reply: false,
            shows_unique: false,
        }
    }
}

/// A data block, with its end.
#[derive(Debug)]
pub(super) enum Data<'b> {
    Slice(&'b [u8]),
    Shared(Bytes),
}

impl Data<'_> {
    fn put(self, out: &mut Output<'_>) {
        match self {
            Data::Slice(bytes) => out.bytes(bytes),
            Data::Shared(bytes) if bytes.len() < LARGE => out.bytes(&bytes),
            Data::Shared(bytes) => out.shared(bytes),
        }
    }
}

/// `get` and its kin, of one key or several.
#[inline]
pub(super) fn get<'k>(
    out: &mut Output<'_>,
    verb: GetVerb,
    keys: impl Iterator<Item = &'k [u8]>,
) -> Passed {
    get_verb(out, verb);
    let (mut only, mut count) = (0, 0);
    for key in keys {
        if count == 0 {
            only = mark(key);
        }
        count += 1;
        get_key(out, key);
    }
    out.bytes(reply::CRLF);
    Passed {
        shape: Shape::Values,
        mark: if count == 1 { only } else { 0 },
        reads: true,
        shows_unique: verb.with_cas,
        ..Passed::line()
    }
}

/// A list of keys that was put together by [`get_verb`] and [`get_key`].
pub(super) fn several(verb: GetVerb) -> Passed {
    Passed {
        shape: Shape::Values,
        reads: true,
        shows_unique: verb.with_cas,
        ..Passed::line()
    }
}

/// How such a line begins.
pub(super) fn get_verb(out: &mut Output<'_>, verb: GetVerb) {
    out.bytes(match (verb.touch, verb.with_cas) {
        (None, false) => b"get",
        (None, true) => b"gets",
        (Some(_), false) => b"gat",
        (Some(_), true) => b"gats",
    });
    if let Some(touch) = verb.touch {
        exptime(out, touch);
    }
}

#[inline]
pub(super) fn get_key(out: &mut Output<'_>, key: &[u8]) {
    out.bytes(b" ");
    out.bytes(key);
}

/// Any request about one key, for a node of these uniques. `line` is what it came as, without its block.
pub(super) fn one(
    out: &mut Output<'_>,
    request: &Request<'_>,
    line: &[u8],
    block: Data<'_>,
    uniques: Uniques,
) -> Option<Passed> {
    if let Some(head) = request.binary_head() {
        return Some(packet(out, request, line, block, (head.opaque, uniques)));
    }
    Some(match request {
        Request::Get(get) => self::get(out, get.verb, get.keys.iter()),
        Request::Store(store) => self::store(out, store, block, uniques),
        Request::Delete(delete) => match delete.reply {
            ReplyMode::Meta(tokens) => meta(
                out,
                b"md ",
                delete.key.text,
                None,
                (tokens, Hush::Done),
                uniques,
            ),
            reply => {
                text::write_delete(&mut out.buf, delete.key.text, false);
                heard(reply)
            }
        },
        Request::Arith(arith) => match arith.reply {
            ReplyMode::Meta(tokens) => meta(
                out,
                b"ma ",
                arith.key.text,
                None,
                (tokens, Hush::Done),
                uniques,
            ),
            reply => {
                out.bytes(if arith.decrement { b"decr " } else { b"incr " });
                out.bytes(arith.key.text);
                number(out, arith.delta);
                ends(out, reply)
            }
        },
        Request::Touch(touch) => {
            out.bytes(b"touch ");
            out.bytes(touch.key.text);
            exptime(out, touch.exptime);
            let reply = match touch.noreply {
                true => ReplyMode::NoReply,
                false => ReplyMode::Text,
            };
            ends(out, reply)
        }
        Request::MetaGet(get) => {
            let asked = (get.tokens, Hush::Miss);
            Passed {
                // One that names a unique makes an item with it, on this node alone.
                reads: !names_unique(get.tokens),
                ..meta(out, b"mg ", get.key.text, None, asked, uniques)
            }
        }
        Request::MetaDebug(key) => {
            out.bytes(b"me ");
            out.bytes(key.text);
            if key.base64 {
                out.bytes(b" b");
            }
            out.bytes(reply::CRLF);
            Passed {
                shows_unique: true,
                ..Passed::line()
            }
        }
        _ => return None,
    })
}

fn ends(out: &mut Output<'_>, reply: ReplyMode<'_>) -> Passed {
    out.bytes(reply::CRLF);
    heard(reply)
}

fn heard(reply: ReplyMode<'_>) -> Passed {
    Passed {
        no_reply: matches!(reply, ReplyMode::NoReply),
        ..Passed::line()
    }
}

fn store(out: &mut Output<'_>, store: &Store<'_>, block: Data<'_>, uniques: Uniques) -> Passed {
    if let ReplyMode::Meta(tokens) = store.reply {
        let (key, len) = (store.key.text, Some(store.value_len));
        let passed = meta(out, b"ms ", key, len, (tokens, Hush::Done), uniques);
        block.put(out);
        return passed;
    }
    out.bytes(match (store.mode, store.compare_cas) {
        (_, Some(_)) => b"cas ",
        (StoreMode::Set, _) => b"set ",
        (StoreMode::Add, _) => b"add ",
        (StoreMode::Replace, _) => b"replace ",
        (StoreMode::Append, _) => b"append ",
        (StoreMode::Prepend, _) => b"prepend ",
    });
    out.bytes(store.key.text);
    number(out, store.client_flags);
    exptime(out, store.exptime);
    number(out, store.value_len);
    if let Some(unique) = store.compare_cas {
        number(out, uniques.asked(unique));
    }
    let passed = ends(out, store.reply);
    block.put(out);
    passed
}

/// A meta command without its `q`; `hush` is what that left out.
fn meta(
    out: &mut Output<'_>,
    verb: &[u8],
    key: &[u8],
    value_len: Option<u32>,
    (tokens, hush): (MetaTokens<'_>, Hush),
    uniques: Uniques,
) -> Passed {
    out.bytes(verb);
    out.bytes(key);
    if let Some(len) = value_len {
        number(out, len);
    }
    if tokens.quiet || (!tokens.bare && names_unique(tokens)) {
        for (flag, token) in tokens.iter().filter(|(flag, _)| *flag != b'q') {
            out.bytes(&[b' ', flag]);
            let unique = matches!(flag, b'C' | b'E').then(|| std::str::from_utf8(token));
            match unique.and_then(|text| text.ok()?.parse().ok()) {
                Some(unique) => reply::number(&mut out.buf, uniques.asked(unique)),
                None => out.bytes(token),
            }
        }
    } else if !tokens.text.is_empty() {
        out.bytes(b" ");
        out.bytes(tokens.text);
    }
    out.bytes(reply::CRLF);
    Passed {
        shape: Shape::Meta,
        hush: if tokens.quiet { hush } else { Hush::Nothing },
        shows_unique: tokens.iter().any(|(flag, _)| flag == b'c'),
        ..Passed::line()
    }
}

/// True if a client says a CAS unique.
fn names_unique(tokens: MetaTokens<'_>) -> bool {
    tokens.iter().any(|(flag, _)| matches!(flag, b'C' | b'E'))
}

/// A packet, loud.
fn packet(
    out: &mut Output<'_>,
    request: &Request<'_>,
    packet: &[u8],
    block: Data<'_>,
    (opaque, uniques): (u32, Uniques),
) -> Passed {
    let was = packet[1];
    let (loud, was_quiet) = loud(was);
    let from = out.buf.len();
    out.bytes(packet);
    out.buf[from + 1] = loud;
    uniques.ask_in_packet(&mut out.buf[from..]);
    block.put(out);
    let hush = match was_quiet {
        false => Hush::Loud(was),
        true => Hush::Quiet(was),
    };
    Passed {
        shape: Shape::Packet,
        hush,
        mark: opaque,
        reads: matches!(request, Request::BinaryGet(_)),
        ..Passed::line()
    }
}

/// A delete on a lane for packets, whose reply nobody wants.
pub(super) fn unheard_delete(out: &mut Output<'_>, key: &[u8]) -> Passed {
    // Magic, opcode, length of the key; the body is the key.
    let len = key.len() as u8;
    let mut head = [0; HEADER_LEN];
    (head[0], head[1], head[3], head[11]) = (MAGIC_REQUEST, 0x04, len, len);
    out.bytes(&head);
    out.bytes(key);
    Passed {
        shape: Shape::Packet,
        no_reply: true,
        ..Passed::line()
    }
}

fn number(out: &mut Output<'_>, number: impl itoa::Integer) {
    out.bytes(b" ");
    reply::number(&mut out.buf, number);
}

fn exptime(out: &mut Output<'_>, exptime: Exptime) {
    match exptime {
        Exptime::NEVER => out.bytes(b" 0"),
        exptime => {
            out.bytes(b" ");
            out.bytes(exptime.to_string().as_bytes());
        }
    }
}
