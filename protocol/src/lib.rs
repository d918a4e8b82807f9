//! memcached's wire formats as pure functions: bytes to [`Request`], replies to bytes.
//!
//! ```text
//!  read buffer --parse--> Request<'buf> --(command executes)--> reply functions --> write buffer
//! ```
//!
//! A request borrows from the read buffer; a data block is described by its length and never copied here. This crate
//! knows no clock, no lock and no allocator of items: what a request means is the server's (or the client's) business.
//!
//! ```text
//!  text.rs, meta.rs, binary.rs    parsers: bytes -> Parsed          words.rs    the grammar of lines
//!  plain.rs                       text of most requests in one go   scan.rs     where words and lines end
//!  request.rs, key.rs             what they make: Request           refusal.rs  what they say of a line that is none
//!  reply.rs, binary/reply.rs      replies -> bytes                  error.rs    every line of refusal
//! ```
//!
//! P1. A parser looks at the bytes it is given and nothing else; the same bytes give the same answer however they were
//!     cut into reads: a prefix of a request is [`Parsed::Incomplete`], never an error that more bytes would take back.
//!     Key lists longer than [`LINE_LEN_MAX`] come in pieces; [`text`] says what holds for them.
//! P2. `consumed` never exceeds the bytes given, and is at least 1 unless the answer is `Incomplete` or `HangUp`.
//! P3. Nothing here panics or allocates by a number the peer sent.
//!
//! Sources: memcached's doc/protocol.txt for the text and meta commands, its protocol-binary.xml for the binary ones.
#![forbid(unsafe_code)]

pub mod base64;
pub mod binary;
pub mod error;
mod exptime;
mod key;
mod limits;
mod meta;
mod plain;
mod refusal;
pub mod reply;
mod request;
mod scan;
pub mod text;
pub mod udp;
mod words;

pub use binary::{BinaryHead, Status};
pub use error::ErrorLine;
pub use exptime::{Expiry, Exptime};
pub use key::{Key, KeyBuf};
pub use limits::{
    ITEM_LEN_MAX, KEY_LEN_MAX, LINE_LEN_MAX, META_TOKENS_MAX, OPAQUE_LEN_MAX, VALUE_LEN_MAX,
};
pub use reply::uri_encode;
pub use request::{
    Admin, AdminVerb, Args, Arith, BinaryAdmin, BinaryGet, BinaryVerb, ConfigSet, Delete, Fault,
    Get, GetVerb, Keys, MetaGet, MetaTokens, Parsed, ReplyMode, Request, Sasl, SaslVerb, Skip,
    Store, StoreMode, Touch,
};

#[cfg(test)]
mod tests;
