//! The binary protocol: a header of 24 bytes, and behind it extras, key and value.
//!
//! ```text
//!  0       1        2         4            5           6         8          12       16    24
//!  | magic | opcode | key_len | extras_len | data type | vbucket | body_len | opaque | cas | extras | key | value |
//!                                                        status                            \____ body_len ____/
//! ```
//!
//! Numbers are big-endian. In a reply the place of the vbucket holds the status. Data type and vbucket are not looked
//! at, as memcached does not. A value is described by its length, as in text; it has no line end behind it.
//!
//! B1. A header alone tells whether a request is well formed: a refusal never waits for extras or key.
//! B2. The lengths of the header tell where the next request begins, whatever becomes of this one. Where they
//!     contradict each other or the opcode, or tell of more than any item can be, the peer is lost: it is answered, and
//!     nothing more is read ([`Skip::All`]).
//! B3. A quiet opcode hides the nominal reply alone: misses of those that read, successes of those that write. Errors
//!     are always answered.
//!
//! Source: memcached's protocol-binary.xml.

use crate::{
    Arith, BinaryAdmin, BinaryGet, BinaryVerb, Delete, Exptime, Fault, ITEM_LEN_MAX, KEY_LEN_MAX,
    Key, Parsed, ReplyMode, Request, Sasl, SaslVerb, Skip, Store, StoreMode,
};

mod head;
mod reply;

pub use head::{BinaryHead, HEADER_LEN, MAGIC_REPLY, MAGIC_REQUEST};
pub use reply::{Status, error, missing, number, ok, stat, stat_end, text, value_head};

/// The exptime that tells `incr` and `decr` not to create a missing item.
const DO_NOT_CREATE: u32 = u32::MAX;

/// The second byte of a request, which its reply repeats. A `Q` at the end stands for quiet.
#[allow(missing_docs, reason = "each is the command of that name")]
pub mod opcode {
    pub const GET: u8 = 0x00;
    pub const SET: u8 = 0x01;
    pub const ADD: u8 = 0x02;
    pub const REPLACE: u8 = 0x03;
    pub const DELETE: u8 = 0x04;
    pub const INCREMENT: u8 = 0x05;
    pub const DECREMENT: u8 = 0x06;
    pub const QUIT: u8 = 0x07;
    pub const FLUSH: u8 = 0x08;
    pub const GETQ: u8 = 0x09;
    pub const NOOP: u8 = 0x0a;
    pub const VERSION: u8 = 0x0b;
    pub const GETK: u8 = 0x0c;
    pub const GETKQ: u8 = 0x0d;
    pub const APPEND: u8 = 0x0e;
    pub const PREPEND: u8 = 0x0f;
    pub const STAT: u8 = 0x10;
    pub const SETQ: u8 = 0x11;
    pub const ADDQ: u8 = 0x12;
    pub const REPLACEQ: u8 = 0x13;
    pub const DELETEQ: u8 = 0x14;
    pub const INCREMENTQ: u8 = 0x15;
    pub const DECREMENTQ: u8 = 0x16;
    pub const QUITQ: u8 = 0x17;
    pub const FLUSHQ: u8 = 0x18;
    pub const APPENDQ: u8 = 0x19;
    pub const PREPENDQ: u8 = 0x1a;
    pub const VERBOSITY: u8 = 0x1b;
    pub const TOUCH: u8 = 0x1c;
    pub const GAT: u8 = 0x1d;
    pub const GATQ: u8 = 0x1e;
    pub const SASL_LIST: u8 = 0x20;
    pub const SASL_AUTH: u8 = 0x21;
    pub const SASL_STEP: u8 = 0x22;
    pub const GATK: u8 = 0x23;
    pub const GATKQ: u8 = 0x24;
    /// Hosted memcached's; memcached itself does not know it.
    pub const CONFIG_GET: u8 = 0x60;
}
use opcode::*;

/// The opcode without its quietness, and whether it was quiet.
pub fn loud(opcode: u8) -> (u8, bool) {
    let loud = match opcode {
        GETQ => GET,
        GETKQ => GETK,
        SETQ => SET,
        ADDQ => ADD,
        REPLACEQ => REPLACE,
        DELETEQ => DELETE,
        INCREMENTQ => INCREMENT,
        DECREMENTQ => DECREMENT,
        QUITQ => QUIT,
        FLUSHQ => FLUSH,
        APPENDQ => APPEND,
        PREPENDQ => PREPEND,
        GATQ => GAT,
        GATKQ => GATK,
        _ => return (opcode, false),
    };
    (loud, true)
}

/// Parses the request at the start of `buf`.
#[inline]
pub fn parse(buf: &[u8]) -> Parsed<'_> {
    match buf.first() {
        None => return Parsed::Incomplete,
        Some(&MAGIC_REQUEST) => {}
        Some(_) => return Parsed::HangUp,
    }
    let Some(header) = buf.first_chunk::<HEADER_LEN>() else {
        return Parsed::Incomplete;
    };
    let opcode = loud(header[1]).0;
    let (key_len, extras_len) = (usize::from(u16_at(header, 2)), usize::from(header[4]));
    let body_len = u32_at(header, 8);
    let head = head_in(header);
    // Both lengths together are far below what overflows.
    let Some(value_len) = body_len.checked_sub((key_len + extras_len) as u32) else {
        return refused(head, Status::UnknownCommand, Skip::All);
    };
    if body_len > ITEM_LEN_MAX || key_len > KEY_LEN_MAX {
        return refused(head, Status::InvalidArguments, Skip::All);
    }
    match is_well_formed(opcode, extras_len, key_len, value_len) {
        Some(true) => {}
        Some(false) => return refused(head, Status::InvalidArguments, Skip::All),
        None => return refused(head, Status::UnknownCommand, skip(body_len)),
    }
    let consumed = HEADER_LEN + extras_len + key_len;
    let Some(rest) = buf.get(HEADER_LEN..consumed) else {
        return Parsed::Incomplete;
    };
    let (extras, key) = rest.split_at(extras_len);
    let cas = u64_at(header, 16);
    let packet = Packet {
        opcode,
        head,
        compare_cas: (cas != 0).then_some(cas),
        extras,
        key,
        value_len,
    };
    Parsed::Complete {
        request: packet.request(),
        consumed,
    }
}

/// What a reply to the packet at the start of `buf` repeats of it, if its header is there.
pub fn head(buf: &[u8]) -> Option<BinaryHead> {
    let header = buf.first_chunk::<HEADER_LEN>()?;
    (header[0] == MAGIC_REQUEST).then(|| head_in(header))
}

#[inline]
fn head_in(header: &[u8; HEADER_LEN]) -> BinaryHead {
    BinaryHead {
        opcode: header[1],
        quiet: loud(header[1]).1,
        opaque: u32_at(header, 12),
    }
}

/// Whether the lengths are such as the opcode wants; `None` for an opcode that is not known.
#[inline]
fn is_well_formed(opcode: u8, extras_len: usize, key_len: usize, value_len: u32) -> Option<bool> {
    let (extras, has_key, may_have_value) = match opcode {
        GET | GETK | DELETE => (0, true, false),
        SET | ADD | REPLACE => (8, true, true),
        APPEND | PREPEND => (0, true, true),
        INCREMENT | DECREMENT => (20, true, false),
        TOUCH | GAT | GATK => (4, true, false),
        NOOP | VERSION | QUIT | SASL_LIST => (0, false, false),
        FLUSH if extras_len == 0 => (0, false, false),
        FLUSH | VERBOSITY => (4, false, false),
        // A group may be named or not.
        STAT => (0, key_len > 0, false),
        SASL_AUTH | SASL_STEP => (0, true, true),
        // With other lengths it is as unknown as in memcached.
        CONFIG_GET if (extras_len, value_len) == (0, 0) && key_len > 0 => (0, true, false),
        _ => return None,
    };
    Some(extras_len == extras && (key_len > 0) == has_key && (value_len == 0 || may_have_value))
}

#[cold]
fn refused<'b>(head: BinaryHead, status: Status, skip: Skip) -> Parsed<'b> {
    Parsed::Invalid {
        error: Fault::Status(head, status),
        quiet: false,
        consumed: HEADER_LEN,
        skip,
    }
}

fn skip(bytes: u32) -> Skip {
    if bytes == 0 {
        Skip::None
    } else {
        Skip::Bytes(bytes.into())
    }
}

/// A well-formed request, taken apart; its value follows in the stream.
struct Packet<'b> {
    /// Without its quietness.
    opcode: u8,
    head: BinaryHead,
    compare_cas: Option<u64>,
    extras: &'b [u8],
    key: &'b [u8],
    value_len: u32,
}

impl<'b> Packet<'b> {
    #[inline]
    fn request(&self) -> Request<'b> {
        match self.opcode {
            GET | GETK | TOUCH | GAT | GATK => Request::BinaryGet(self.get()),
            // With a unique to compare all three are `cas`.
            SET => self.store(StoreMode::Set),
            ADD | REPLACE if self.compare_cas.is_some() => self.store(StoreMode::Set),
            ADD => self.store(StoreMode::Add),
            REPLACE => self.store(StoreMode::Replace),
            APPEND => self.store(StoreMode::Append),
            PREPEND => self.store(StoreMode::Prepend),
            DELETE => Request::Delete(Delete {
                key: Key::plain(self.key),
                compare_cas: self.compare_cas,
                new_cas: None,
                invalidate: false,
                touch: None,
                drop_value: false,
                client_flags: 0,
                reply: ReplyMode::Binary(self.head),
            }),
            INCREMENT | DECREMENT => self.arith(),
            SASL_LIST => self.sasl(SaslVerb::List),
            SASL_AUTH => self.sasl(SaslVerb::Auth),
            SASL_STEP => self.sasl(SaslVerb::Step),
            _ => Request::BinaryAdmin(BinaryAdmin {
                verb: self.admin(),
                head: self.head,
            }),
        }
    }

    #[inline]
    fn get(&self) -> BinaryGet<'b> {
        let touches = matches!(self.opcode, TOUCH | GAT | GATK);
        BinaryGet {
            key: Key::plain(self.key),
            touch: touches.then(|| self.exptime(0)),
            want_value: self.opcode != TOUCH,
            want_key: matches!(self.opcode, GETK | GATK),
            head: self.head,
        }
    }

    #[inline]
    fn store(&self, mode: StoreMode) -> Request<'b> {
        let joins = self.extras.is_empty();
        Request::Store(Store {
            key: Key::plain(self.key),
            mode,
            client_flags: if joins { 0 } else { u32_at(self.extras, 0) },
            exptime: if joins {
                Exptime::NEVER
            } else {
                self.exptime(4)
            },
            value_len: self.value_len,
            compare_cas: self.compare_cas,
            new_cas: None,
            invalidate: false,
            vivify: None,
            reply: ReplyMode::Binary(self.head),
        })
    }

    fn arith(&self) -> Request<'b> {
        Request::Arith(Arith {
            key: Key::plain(self.key),
            decrement: self.opcode == DECREMENT,
            delta: u64_at(self.extras, 0),
            vivify: (u32_at(self.extras, 16) != DO_NOT_CREATE).then(|| self.exptime(16)),
            initial: u64_at(self.extras, 8),
            touch: None,
            compare_cas: self.compare_cas,
            new_cas: None,
            want_value: true,
            reply: ReplyMode::Binary(self.head),
        })
    }

    fn sasl(&self, verb: SaslVerb) -> Request<'b> {
        Request::Sasl(Sasl {
            verb,
            mechanism: self.key,
            body_len: self.value_len,
            head: self.head,
        })
    }

    fn admin(&self) -> BinaryVerb<'b> {
        match self.opcode {
            VERSION => BinaryVerb::Version,
            QUIT => BinaryVerb::Quit,
            FLUSH if self.extras.is_empty() => BinaryVerb::Flush(Exptime::NEVER),
            FLUSH => BinaryVerb::Flush(self.exptime(0)),
            VERBOSITY => BinaryVerb::Verbosity(u32_at(self.extras, 0)),
            STAT => BinaryVerb::Stat(self.key),
            CONFIG_GET => BinaryVerb::ConfigGet(self.key),
            _ => BinaryVerb::Noop,
        }
    }

    fn exptime(&self, at: usize) -> Exptime {
        Exptime::from(u32_at(self.extras, at))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    (u32::from(u16_at(bytes, at)) << 16) | u32::from(u16_at(bytes, at + 2))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (u64::from(u32_at(bytes, at)) << 32) | u64::from(u32_at(bytes, at + 4))
}
