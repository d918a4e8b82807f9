//! HTTP/1.1 as bytes: requests read as they come, replies written. No socket, no clock, no thread.
//!
//! ```text
//!  bytes --(Decoder::feed)--> Event::Request | Continue | Refused        decoder.rs, over head.rs and chunks.rs
//!  Request --(path, query, header)--> what was asked for                 request.rs, over percent.rs
//!  Response --(write)--> bytes                                           response.rs
//! ```
//!
//! The caller owns the socket and its deadlines: a peer that sends one byte a minute costs this crate one byte a minute.
//! Whatever the peer sends, a [`Decoder`] holds no more than its [`Limits`] allow.
//!
//! The format is that of RFC 9110 and RFC 9112. Where they let a server choose, it chooses the strict way: what could be
//! read as two different requests is refused, since a proxy in front may read it the other way.

#![forbid(unsafe_code)]

mod chunks;
mod decoder;
mod head;
mod percent;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use decoder::{Decoder, Event, Fed, Limits};
pub use percent::decode as percent_decode;
pub use request::{Method, NotEncoded, Request};
pub use response::{Refusal, Response, date};
