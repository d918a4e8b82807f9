//! The targets: each a function of any bytes, which panics when a promise is broken.

pub mod binary;
pub mod client_reply;
pub mod cut;
pub mod feed;
pub mod frames;
pub mod http;
pub mod memory_file;
pub mod nodes;
pub mod options;
pub mod routes;
pub mod session;
pub mod snapshot;
pub mod text;

/// A name, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 13] = [
    ("text", text::run),
    ("binary", binary::run),
    ("options", options::run),
    ("client_reply", client_reply::run),
    ("feed", feed::run),
    ("http", http::run),
    ("memory_file", memory_file::run),
    ("cut", cut::run),
    ("session", session::run),
    ("snapshot", snapshot::run),
    ("frames", frames::run),
    ("routes", routes::run),
    ("nodes", nodes::run),
];
