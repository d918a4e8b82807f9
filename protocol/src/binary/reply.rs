//! Replies of the binary protocol, appended to a connection's write buffer.

use super::head::{BinaryHead, HEADER_LEN, MAGIC_REPLY};
use crate::error::ErrorLine;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Ok = 0x00,
    /// No such item, or no such group of `stat`.
    NotFound = 0x01,
    /// The item is there already, or its CAS unique is another one.
    Exists = 0x02,
    /// Larger than items may be.
    TooLarge = 0x03,
    /// Lengths that do not fit the opcode, or a key that is too long.
    InvalidArguments = 0x04,
    /// `append`, `prepend` without an item.
    NotStored = 0x05,
    /// `incr`, `decr` of what is no number.
    NonNumeric = 0x06,
    /// Not signed in, or not allowed.
    AuthError = 0x20,
    /// The exchange of a sign-in goes on.
    AuthContinue = 0x21,
    /// The opcode is not known.
    UnknownCommand = 0x81,
    /// No memory.
    OutOfMemory = 0x82,
    /// Others are served; later.
    Busy = 0x85,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 12] = [
        Status::Ok,
        Status::NotFound,
        Status::Exists,
        Status::TooLarge,
        Status::InvalidArguments,
        Status::NotStored,
        Status::NonNumeric,
        Status::AuthError,
        Status::AuthContinue,
        Status::UnknownCommand,
        Status::OutOfMemory,
        Status::Busy,
    ];

    /// The words that stand as value in an error reply.
    pub fn text(self) -> &'static str {
        match self {
            Status::Ok | Status::AuthContinue => "",
            Status::NotFound => "Not found",
            Status::Exists => "Data exists for key.",
            Status::TooLarge => "Too large.",
            Status::InvalidArguments => "Invalid arguments",
            Status::NotStored => "Not stored.",
            Status::NonNumeric => "Non-numeric server-side value for incr or decr",
            Status::AuthError => "Auth failure.",
            Status::UnknownCommand => "Unknown command",
            Status::OutOfMemory => "Out of memory allocating item",
            Status::Busy => "Busy",
        }
    }
}

/// The status that tells what the line tells.
impl From<ErrorLine> for Status {
    fn from(error: ErrorLine) -> Self {
        match error {
            ErrorLine::Error => Status::UnknownCommand,
            ErrorLine::TooLarge => Status::TooLarge,
            ErrorLine::NonNumeric => Status::NonNumeric,
            ErrorLine::FlushNotAllowed | ErrorLine::AuthFailure | ErrorLine::Unauthenticated => {
                Status::AuthError
            }
            ErrorLine::OutOfMemory
            | ErrorLine::OutOfMemoryStoring
            | ErrorLine::OutOfMemoryDuringRead
            | ErrorLine::OutOfMemoryNewItem => Status::OutOfMemory,
            ErrorLine::CrawlerBusy
            | ErrorLine::AuthBusy
            | ErrorLine::Backend
            | ErrorLine::ProxyLoop
            | ErrorLine::Busy => Status::Busy,
            _ => Status::InvalidArguments,
        }
    }
}

/// The lengths of what follows a header.
#[derive(Default)]
struct Lens {
    extras: usize,
    key: usize,
    value: u32,
}

#[inline]
fn header(out: &mut Vec<u8>, head: BinaryHead, status: Status, lens: Lens, cas: u64) {
    let mut header = [0; HEADER_LEN];
    let body_len = lens.value + (lens.extras + lens.key) as u32;
    header[0] = MAGIC_REPLY;
    header[1] = head.opcode;
    header[2..4].copy_from_slice(&(lens.key as u16).to_be_bytes());
    header[4] = lens.extras as u8;
    header[6..8].copy_from_slice(&(status as u16).to_be_bytes());
    header[8..12].copy_from_slice(&body_len.to_be_bytes());
    header[12..16].copy_from_slice(&head.opaque.to_be_bytes());
    header[16..24].copy_from_slice(&cas.to_be_bytes());
    out.extend_from_slice(&header);
}

/// Done, and nothing more to say; `cas` is the item's unique, 0 if there is none to tell.
pub fn ok(out: &mut Vec<u8>, head: BinaryHead, cas: u64) {
    header(out, head, Status::Ok, Lens::default(), cas);
}

/// Why it was not done.
pub fn error(out: &mut Vec<u8>, head: BinaryHead, status: Status) {
    value(out, head, status, status.text().as_bytes(), 0);
}

/// A reply with a value of bytes: a version, a mechanism list, a challenge.
pub fn text(out: &mut Vec<u8>, head: BinaryHead, status: Status, text: &[u8]) {
    value(out, head, status, text, 0);
}

/// What `incr` and `decr` counted to.
pub fn number(out: &mut Vec<u8>, head: BinaryHead, number: u64, cas: u64) {
    value(out, head, Status::Ok, &number.to_be_bytes(), cas);
}

fn value(out: &mut Vec<u8>, head: BinaryHead, status: Status, value: &[u8], cas: u64) {
    let lens = Lens {
        value: value.len() as u32,
        ..Lens::default()
    };
    header(out, head, status, lens, cas);
    out.extend_from_slice(value);
}

/// All of a retrieval's reply that stands before the value. `key` is empty where it was not asked for.
#[inline]
pub fn value_head(
    out: &mut Vec<u8>,
    head: BinaryHead,
    client_flags: u32,
    key: &[u8],
    value_len: u32,
    cas: u64,
) {
    let flags = client_flags.to_be_bytes();
    let lens = Lens {
        extras: flags.len(),
        key: key.len(),
        value: value_len,
    };
    header(out, head, Status::Ok, lens, cas);
    out.extend_from_slice(&flags);
    out.extend_from_slice(key);
}

/// No item of this key, for those opcodes that give the key back: it stands in the place of the words.
pub fn missing(out: &mut Vec<u8>, head: BinaryHead, key: &[u8]) {
    let lens = Lens {
        key: key.len(),
        ..Lens::default()
    };
    header(out, head, Status::NotFound, lens, 0);
    out.extend_from_slice(key);
}

/// One line of `stat`.
pub fn stat(out: &mut Vec<u8>, head: BinaryHead, key: &[u8], value: &[u8]) {
    let lens = Lens {
        key: key.len(),
        value: value.len() as u32,
        ..Lens::default()
    };
    header(out, head, Status::Ok, lens, 0);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// The end of the lines of `stat`.
pub fn stat_end(out: &mut Vec<u8>, head: BinaryHead) {
    ok(out, head, 0);
}
