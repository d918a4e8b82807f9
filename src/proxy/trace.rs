//! Traces, by which proxies that lead to each other in a circle notice it: the first thing that a proxy says on a connection is a read
//! of a key that names it. A proxy that is asked for such a key asks all its nodes for it, with one hop more; servers miss.

use protocol::binary::{MAGIC_REQUEST, opcode};

/// What the keys of traces begin with.
const PREFIX: &str = "ketch-proxy:";
/// Proxies that may stand behind each other.
pub(super) const HOPS_MAX: u32 = 8;

fn key(id: u64, hops: u32) -> String {
    format!("{PREFIX}{id:016x}:{hops}")
}

/// The trace in text.
pub(super) fn line(out: &mut Vec<u8>, id: u64, hops: u32) {
    out.extend_from_slice(format!("get {}\r\n", key(id, hops)).as_bytes());
}

/// The trace as a packet.
pub(super) fn packet(out: &mut Vec<u8>, id: u64, hops: u32) {
    let key = key(id, hops);
    let len = key.len() as u8;
    out.extend_from_slice(&[MAGIC_REQUEST, opcode::GET, 0, len]);
    out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, len]);
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(key.as_bytes());
}

/// Whose trace a key is, and how far it has come.
pub(super) fn of_key(key: &[u8]) -> Option<(u64, u32)> {
    let rest = key.strip_prefix(PREFIX.as_bytes())?;
    let (id, hops) = std::str::from_utf8(rest).ok()?.split_once(':')?;
    Some((u64::from_str_radix(id, 16).ok()?, hops.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_again() {
        let (mut text, mut packets) = (Vec::new(), Vec::new());
        line(&mut text, 7, 3);
        packet(&mut packets, u64::MAX, 8);
        assert_eq!(text, b"get ketch-proxy:0000000000000007:3\r\n");
        assert_eq!(of_key(&text[4..text.len() - 2]), Some((7, 3)));
        assert_eq!(of_key(&packets[24..]), Some((u64::MAX, 8)));
        for key in [
            "",
            "ketch-proxy:",
            "ketch-proxy:7",
            "ketch-proxy:x:1",
            "other:7:1",
        ] {
            assert_eq!(of_key(key.as_bytes()), None, "{key}");
        }
    }
}
