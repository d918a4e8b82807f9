//! Tables of requests and replies, and the ways in which each of them is sent.

use crate::conn::{Conn, escape};
use crate::program::{Version, is_ketch};
use crate::server::Server;

/// A request and the reply it must get from a server whose items have just been flushed. The reply is a pattern of
/// [`Conn::expect_like`].
#[derive(Clone, Copy)]
pub struct Vector {
    request: &'static str,
    reply: &'static str,
    except: Except,
}

/// Where a vector does not hold, and why.
#[derive(Clone, Copy)]
enum Except {
    Nowhere,
    /// In a memcached older than that whose rules ketch follows.
    Older(&'static str),
    /// In every memcached.
    Memcached(&'static str),
}

/// Requests longer than this are not cut at each of their bytes.
const CUT_BYTES_MAX: usize = 160;

/// A vector that holds for every server.
pub const fn both(request: &'static str, reply: &'static str) -> Vector {
    Vector {
        request,
        reply,
        except: Except::Nowhere,
    }
}

/// A vector that an older memcached, as distributions ship it, does not fulfil, with the reason. It runs against ketch, and
/// against a memcached of [`Version::FOLLOWED`] or later.
pub const fn newer(reason: &'static str, request: &'static str, reply: &'static str) -> Vector {
    Vector {
        request,
        reply,
        except: Except::Older(reason),
    }
}

/// A vector that no memcached fulfils, with the reason. It runs against ketch alone.
pub const fn ours(reason: &'static str, request: &'static str, reply: &'static str) -> Vector {
    Vector {
        request,
        reply,
        except: Except::Memcached(reason),
    }
}

impl Vector {
    fn applies(&self, is_ketch: bool, version: Version) -> bool {
        match self.except {
            Except::Nowhere => true,
            Except::Older(_) => is_ketch || version >= Version::FOLLOWED,
            Except::Memcached(_) => is_ketch,
        }
    }

    fn describe(&self, how: &str) -> String {
        let request = escape(self.request.as_bytes());
        match self.except {
            Except::Nowhere => format!("{how}: {request}"),
            Except::Older(reason) => format!("{how}: {request} (newer: {reason})"),
            Except::Memcached(reason) => format!("{how}: {request} (ours: {reason})"),
        }
    }
}

/// Sends each vector whole, then cut in two at each byte, then a byte at a time, and at last all of them in one write.
/// The reply must be the same in each case, with nothing after it.
#[track_caller]
pub fn run_vectors(server: &Server, vectors: &[Vector]) {
    let (is_ketch, version) = (is_ketch(), server.version());
    let vectors: Vec<&Vector> = vectors
        .iter()
        .filter(|vector| vector.applies(is_ketch, version))
        .collect();
    let mut conn = server.connect();
    for vector in &vectors {
        let request = vector.request.as_bytes();
        run_one(&mut conn, vector, "whole", &[request]);
        if request.len() <= CUT_BYTES_MAX {
            for at in 1..request.len() {
                let (first, second) = request.split_at(at);
                run_one(&mut conn, vector, &format!("cut at {at}"), &[first, second]);
            }
        }
        if request.len() <= 4 * CUT_BYTES_MAX {
            let bytes: Vec<&[u8]> = request.chunks(1).collect();
            run_one(&mut conn, vector, "byte by byte", &bytes);
        }
    }

    let mut batch = String::new();
    for vector in &vectors {
        batch += "flush_all\r\n";
        batch += vector.request;
    }
    conn.send(&batch);
    for vector in &vectors {
        conn.note = vector.describe("in one write with all others");
        conn.expect_like("OK\r\n");
        conn.expect_like(vector.reply);
    }
    conn.expect_nothing();
}

#[track_caller]
fn run_one(conn: &mut Conn, vector: &Vector, how: &str, parts: &[&[u8]]) {
    conn.note = vector.describe(how);
    conn.round("flush_all\r\n", "OK\r\n");
    for part in parts {
        conn.send(part);
    }
    conn.expect_like(vector.reply);
    // Nothing comes behind the reply.
    conn.expect_nothing();
}
