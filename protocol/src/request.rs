//! What a parser makes of bytes: one [`Request`], whatever its encoding.

use crate::binary::{BinaryHead, Status};
use crate::error::ErrorLine;
use crate::exptime::Exptime;
use crate::key::Key;
use crate::reply;
use crate::scan;
use crate::words::{self, Words};

/// What a parser makes of the start of a read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'b> {
    /// A whole request (without its data block, if it has one), and how many bytes of the buffer it took.
    Complete {
        /// The request.
        request: Request<'b>,
        /// Bytes taken from the buffer.
        consumed: usize,
    },
    /// More bytes are needed.
    Incomplete,
    /// A request that is refused: answer `error`, then go on behind what is skipped.
    Invalid {
        /// What to answer.
        error: Fault,
        /// True where the client asked for no reply and memcached keeps silent about this error.
        quiet: bool,
        /// Bytes taken from the buffer.
        consumed: usize,
        /// What follows in the stream and must not be read as commands.
        skip: Skip,
    },
    /// The peer does not speak memcached (HTTP, an endless line): close without a word.
    HangUp,
}

/// The answer to a request that is refused, in the encoding it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A line.
    Line(ErrorLine),
    /// A binary error reply.
    Status(BinaryHead, Status),
}

/// Bytes behind a refused request that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Nothing.
    None,
    /// A data block with its line end: so many bytes. The answer follows them, as in memcached.
    Bytes(u64),
    /// Everything up to and with the next `\n`.
    Line,
    /// Everything: where the next request begins is not known, so the connection is closed behind the answer.
    All,
}

/// One request, whatever its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'b> {
    /// `get`, `gets`, `gat`, `gats`.
    Get(Get<'b>),
    /// `set` and its kin, and `ms`.
    Store(Store<'b>),
    /// `delete` and `md`.
    Delete(Delete<'b>),
    /// `incr`, `decr` and `ma`.
    Arith(Arith<'b>),
    /// `touch`.
    Touch(Touch<'b>),
    /// `mg`.
    MetaGet(MetaGet<'b>),
    /// `me`.
    MetaDebug(Key<'b>),
    /// `mn`.
    MetaNoop,
    /// Everything that is about the server and not about one key.
    Admin(Admin<'b>),
    /// Binary get, gat and touch in all their kinds.
    BinaryGet(BinaryGet<'b>),
    /// What is binary and about no key.
    BinaryAdmin(BinaryAdmin<'b>),
    /// A step of a binary sign-in.
    Sasl(Sasl<'b>),
    /// `config set` and `config add`.
    ConfigSet(ConfigSet<'b>),
}

impl<'b> Request<'b> {
    /// The key it is about; none if it is about a list of keys, or about none.
    #[inline(always)]
    pub fn key(&self) -> Option<Key<'b>> {
        match self {
            Request::Get(get) if get.single => Some(Key::plain(get.keys.0)),
            Request::Store(store) => Some(store.key),
            Request::Delete(delete) => Some(delete.key),
            Request::Arith(arith) => Some(arith.key),
            Request::Touch(touch) => Some(touch.key),
            Request::MetaGet(get) => Some(get.key),
            Request::MetaDebug(key) => Some(*key),
            Request::BinaryGet(get) => Some(get.key),
            Request::Get(_)
            | Request::MetaNoop
            | Request::Admin(_)
            | Request::BinaryAdmin(_)
            | Request::Sasl(_)
            | Request::ConfigSet(_) => None,
        }
    }

    /// Bytes of the data block that follows it in the stream; none if no block does.
    #[inline(always)]
    pub fn block(&self) -> Option<u64> {
        match self {
            Request::Store(store) => Some(store.block_len()),
            Request::ConfigSet(set) => Some(set.block_len()),
            Request::Sasl(sasl) => Some(sasl.body_len.into()),
            _ => None,
        }
    }

    /// How to answer it, if it is binary.
    pub fn binary_head(&self) -> Option<BinaryHead> {
        let reply = match self {
            Request::BinaryGet(get) => return Some(get.head),
            Request::BinaryAdmin(admin) => return Some(admin.head),
            Request::Sasl(sasl) => return Some(sasl.head),
            Request::Store(store) => store.reply,
            Request::Delete(delete) => delete.reply,
            Request::Arith(arith) => arith.reply,
            _ => return None,
        };
        match reply {
            ReplyMode::Binary(head) => Some(head),
            _ => None,
        }
    }
}

/// Requests are copied into batches: one that grows makes all of them slower.
const _: () = assert!(size_of::<Request<'_>>() <= 120);

/// How a request wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode<'b> {
    /// A classic reply line.
    Text,
    /// Classic `noreply`: nothing at all.
    NoReply,
    /// A meta reply that echoes tokens.
    Meta(MetaTokens<'b>),
    /// A binary reply with this head.
    Binary(BinaryHead),
}

impl ReplyMode<'_> {
    /// True for a binary request.
    #[inline]
    pub fn is_binary(&self) -> bool {
        matches!(self, ReplyMode::Binary(_))
    }
}

/// The flag tokens of a meta request, in the order the client sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaTokens<'b> {
    /// The text behind the key (and length), without the line end: tokens with spaces between.
    pub text: &'b [u8],
    /// Flag `q`: the nominal reply is left out.
    pub quiet: bool,
    /// True if they are letters alone, one space between them, of which none acts in its turn: every other byte is one.
    pub bare: bool,
}

impl<'b> MetaTokens<'b> {
    /// Each flag and what stands right behind it, which is empty for most.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'b [u8])> + use<'b> {
        words::flags(self.text)
    }
}

/// Which retrieval command a key list belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetVerb {
    /// `gets`, `gats`: the CAS unique is shown.
    pub with_cas: bool,
    /// `gat`, `gats`: the new expiry time.
    pub touch: Option<Exptime>,
}

impl GetVerb {
    /// `get`.
    pub const GET: GetVerb = GetVerb {
        with_cas: false,
        touch: None,
    };
    /// `gets`.
    pub const GETS: GetVerb = GetVerb {
        with_cas: true,
        touch: None,
    };
}

/// `get`, `gets`, `gat` or `gats`, or a piece of one: a key list may be longer than any buffer.
///
/// Where `last` is false the rest of the list follows in the stream and is parsed by [`text::parse_keys`](crate::text::parse_keys) with the same
/// verb; `END` is owed only after the last piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Get<'b> {
    /// Which command.
    pub verb: GetVerb,
    /// The keys of this piece, which may be none unless it is the only one.
    pub keys: Keys<'b>,
    /// The whole list is one key, with nothing around it; never true of a piece.
    pub single: bool,
    /// True if the line ends behind these keys.
    pub last: bool,
}

/// Keys with spaces between them, each 1-250 bytes: checked by the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys<'b>(pub &'b [u8]);

impl<'b> Keys<'b> {
    /// True if there is exactly one key, and nothing around it.
    #[inline]
    pub(crate) fn is_single(&self) -> bool {
        !self.0.is_empty() && scan::find(b' ', self.0).is_none()
    }

    /// The key that begins at or behind `at`, and where it ends.
    #[inline]
    pub fn next_from(&self, at: usize) -> Option<(&'b [u8], usize)> {
        let mut words = Words::new(&self.0[at..]);
        let key = words.next_key()?;
        Some((key, self.0.len() - words.rest().len()))
    }

    /// The keys in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let mut words = Words::new(self.0);
        std::iter::from_fn(move || words.next_key())
    }
}

/// How a store treats what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// Store in any case.
    Set,
    /// Only if the key is absent.
    Add,
    /// Only if the key is present.
    Replace,
    /// Put the data behind the present value.
    Append,
    /// Put the data before the present value.
    Prepend,
}

/// A store; its data block of [`Store::block_len`] bytes follows in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store<'b> {
    /// The key.
    pub key: Key<'b>,
    /// The mode; classic `cas` is `Set` with `compare_cas`.
    pub mode: StoreMode,
    /// Opaque to the server, kept with the value.
    pub client_flags: u32,
    /// When the item expires.
    pub exptime: Exptime,
    /// Bytes of the value, without the `\r\n` behind it.
    pub value_len: u32,
    /// Store only if the item's CAS unique is this (`cas`, ms `C`).
    pub compare_cas: Option<u64>,
    /// The CAS unique to give the new item (ms `E`).
    pub new_cas: Option<u64>,
    /// ms `I`: with a lower `compare_cas`, store and mark stale.
    pub invalidate: bool,
    /// ms `N` in append and prepend mode: create a missing item with this expiry.
    pub vivify: Option<Exptime>,
    /// How to answer.
    pub reply: ReplyMode<'b>,
}

impl Store<'_> {
    /// What stands behind the value: a line end, but in binary nothing.
    #[inline]
    pub fn block_end(&self) -> &'static [u8] {
        if self.reply.is_binary() {
            b""
        } else {
            reply::CRLF
        }
    }

    /// Bytes of the data block: the value and what stands behind it.
    #[inline]
    pub fn block_len(&self) -> u64 {
        u64::from(self.value_len) + self.block_end().len() as u64
    }
}

/// `delete` or `md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delete<'b> {
    /// The key.
    pub key: Key<'b>,
    /// Only if the item's CAS unique is this (`C`).
    pub compare_cas: Option<u64>,
    /// The CAS unique the kept item gets (`E`).
    pub new_cas: Option<u64>,
    /// `I`: keep the item but mark it stale.
    pub invalidate: bool,
    /// `T`: with `I` or `x`, the item's new expiry.
    pub touch: Option<Exptime>,
    /// `x`: keep the item, drop its value and client flags.
    pub drop_value: bool,
    /// `F`: with `x`, the client flags of what stays.
    pub client_flags: u32,
    /// How to answer.
    pub reply: ReplyMode<'b>,
}

/// `incr`, `decr` or `ma`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arith<'b> {
    /// The key.
    pub key: Key<'b>,
    /// True to count down (stops at 0); counting up wraps at 2^64.
    pub decrement: bool,
    /// By how much.
    pub delta: u64,
    /// `N`: create a missing item with this expiry...
    pub vivify: Option<Exptime>,
    /// ...and this value (`J`).
    pub initial: u64,
    /// `T`: the item's new expiry.
    pub touch: Option<Exptime>,
    /// Only if the item's CAS unique is this (`C`).
    pub compare_cas: Option<u64>,
    /// The CAS unique to give (`E`).
    pub new_cas: Option<u64>,
    /// `v`: answer with the value (classic commands always do).
    pub want_value: bool,
    /// How to answer.
    pub reply: ReplyMode<'b>,
}

/// `touch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch<'b> {
    /// The key.
    pub key: Key<'b>,
    /// The new expiry.
    pub exptime: Exptime,
    /// True for `noreply`.
    pub noreply: bool,
}

/// `mg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaGet<'b> {
    /// The key.
    pub key: Key<'b>,
    /// `v`: answer with the value.
    pub want_value: bool,
    /// `u`: leave the item's access state as it is.
    pub no_bump: bool,
    /// `T`: the item's new expiry.
    pub touch: Option<Exptime>,
    /// `N`: create a missing item, empty, with this expiry; its creator wins the lease.
    pub vivify: Option<Exptime>,
    /// `R`: the first to see fewer seconds left than this wins the lease.
    pub recache: Option<Exptime>,
    /// `E`: the CAS unique a vivified item gets.
    pub new_cas: Option<u64>,
    /// `C`: the value is left out if the item's CAS unique is this.
    pub known_cas: Option<u64>,
    /// The tokens to echo, in order; holds `q` too.
    pub tokens: MetaTokens<'b>,
}

/// A command about the server; `args` is the text behind its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admin<'b> {
    /// Which command.
    pub verb: AdminVerb,
    /// Its arguments: read them with [`Args::iter`]. A `noreply` at the end is taken off where the command knows it.
    pub args: Args<'b>,
    /// True for `noreply`.
    pub noreply: bool,
}

/// Words with spaces between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Args<'b>(pub &'b [u8]);

impl<'b> Args<'b> {
    /// The words in order, none of them empty.
    pub fn iter(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        Words::new(self.0)
    }
}

/// The names of the commands about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the command of that name")]
pub enum AdminVerb {
    FlushAll,
    Version,
    Verbosity,
    Quit,
    Shutdown,
    Stats,
    Watch,
    CacheMemlimit,
    RefreshCerts,
    Slabs,
    Lru,
    LruCrawler,
    Extstore,
    DebugTime,
    Config,
    /// ketch's own.
    Snapshot,
}

/// `config set` or `config add`: what hosted memcached keeps for clients that ask for their nodes. Its data block, and `\r\n`
/// behind it, follow in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigSet<'b> {
    /// What is set; `cluster` is the one name there is.
    pub name: &'b [u8],
    /// Opaque to the server, shown by `config get`.
    pub client_flags: u32,
    /// Bytes of the value, without the `\r\n` behind it.
    pub value_len: u32,
    /// `add`: only if nothing is set.
    pub add: bool,
    /// True for `noreply`.
    pub noreply: bool,
}

impl ConfigSet<'_> {
    /// Bytes of the data block: the value and the line end.
    pub fn block_len(&self) -> u64 {
        u64::from(self.value_len) + reply::CRLF.len() as u64
    }
}

/// A binary retrieval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BinaryGet<'b> {
    /// The key.
    pub key: Key<'b>,
    /// The item's new expiry (touch, gat).
    pub touch: Option<Exptime>,
    /// The value is wanted: all but touch.
    pub want_value: bool,
    /// The key is given back (getk, gatk).
    pub want_key: bool,
    /// How to answer; quiet hides a miss.
    pub head: BinaryHead,
}

/// A binary command that is about no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BinaryAdmin<'b> {
    /// Which one.
    pub verb: BinaryVerb<'b>,
    /// How to answer.
    pub head: BinaryHead,
}

/// The binary commands that are about no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryVerb<'b> {
    /// Asks for an answer, which comes behind those to all that was asked before.
    Noop,
    /// The server's version.
    Version,
    /// Ends the connection.
    Quit,
    /// `flush_all`, at this time; 0 is now.
    Flush(Exptime),
    /// The level of the log.
    Verbosity(u32),
    /// `stats` of this group, which may be empty.
    Stat(&'b [u8]),
    /// `config get` of this name.
    ConfigGet(&'b [u8]),
}

/// A step of a binary sign-in; a body of `body_len` bytes, without a line end, follows in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sasl<'b> {
    /// Which step.
    pub verb: SaslVerb,
    /// The name of the mechanism, empty for [`SaslVerb::List`].
    pub mechanism: &'b [u8],
    /// Bytes of the client's message.
    pub body_len: u32,
    /// How to answer.
    pub head: BinaryHead,
}

/// The steps of a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslVerb {
    /// Which mechanisms there are.
    List,
    /// Begins.
    Auth,
    /// Goes on.
    Step,
}
