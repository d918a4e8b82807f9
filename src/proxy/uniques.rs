//! CAS uniques as a proxy shows them: those of two nodes are different numbers.
//!
//! Each node counts its own stores from 1, so the same number means something else on another node. One server's uniques never do, and
//! programs may compare those of several keys. So the numbers up to [`LAST`] are turned, by as much as the node's name says:
//!
//! ```text
//!  a node's      0 | 1 2 3 .. ............................ LAST | LAST + 1 ..
//!                |   '---- turn ----.                           |
//!  a client's    0 |    .. LAST - 1 | LAST 1 2 3 .. ........... | LAST + 1 ..
//! ```
//!
//! Un1. Each number has one other: what a client names itself (meta flag `E`) is shown as it was named.
//! Un2. The turn follows from the node's name alone: it is the same in each proxy, and after each change of the routes. A key that has
//!      moved to another node has other uniques there; an old one compares with nothing.
//! Un3. 0 stays 0: there is no unique. No number becomes longer than 31 bits, for programs that keep no more of it.
//! Un4. Numbers that follow each other do so afterwards, but for one place: what is older, for flag `I`, nodes decide by their own.

use client_core::health::Member;
use protocol::binary::HEADER_LEN;

use super::frame::{Block, Shape};

/// The last number that is turned.
const LAST: u64 = (1 << 31) - 1;
/// Where a packet has its unique.
const CAS: std::ops::Range<usize> = 16..HEADER_LEN;

/// The turn of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uniques {
    turn: u64,
}

impl Uniques {
    pub(super) fn of(member: &Member) -> Self {
        Uniques {
            turn: member.identity % LAST,
        }
    }

    /// A node's unique as clients are told it.
    #[inline]
    pub(super) fn shown(self, unique: u64) -> u64 {
        match unique {
            1..=LAST if unique + self.turn > LAST => unique + self.turn - LAST,
            1..=LAST => unique + self.turn,
            _ => unique,
        }
    }

    /// What clients name as it is on the node: the way back.
    #[inline]
    pub(super) fn asked(self, unique: u64) -> u64 {
        match unique {
            1..=LAST if unique > self.turn => unique - self.turn,
            1..=LAST => unique + LAST - self.turn,
            _ => unique,
        }
    }

    /// [`Uniques::asked`] in a packet.
    #[inline]
    pub(super) fn ask_in_packet(self, packet: &mut [u8]) {
        in_packet(packet, |unique| self.asked(unique));
    }

    /// [`Uniques::shown`] in a packet.
    #[inline]
    pub(super) fn show_in_packet(self, packet: &mut [u8]) {
        in_packet(packet, |unique| self.shown(unique));
    }

    /// A line of a reply of this shape, with or without its end, as clients see it.
    pub(super) fn show_line(self, shape: Shape, line: &[u8], out: &mut Vec<u8>) {
        for (at, word) in line.split(|&byte| byte == b' ').enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            let before = match (shape, line) {
                // VALUE key flags length unique
                (Shape::Values, [b'V', ..]) if at == 4 => 0,
                // HD c7 .., VA 3 c7 .., ME key cas=7 ..
                (Shape::Meta, [b'H' | b'V', ..]) if at > 0 && word.starts_with(b"c") => 1,
                (Shape::Line, [b'M', b'E', ..]) if at > 1 && word.starts_with(b"cas=") => 4,
                _ => word.len(),
            };
            let (name, rest) = word.split_at(before);
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, end) = rest.split_at(digits);
            out.extend_from_slice(name);
            match std::str::from_utf8(number).map(str::parse) {
                Ok(Ok(number)) => protocol::reply::number(out, self.shown(number)),
                _ => out.extend_from_slice(number),
            }
            out.extend_from_slice(end);
        }
    }

    /// A reply of several values, as clients see it, and where its values are then.
    pub(super) fn show_values(self, reply: &[u8], blocks: &[Block]) -> (Vec<u8>, Vec<Block>) {
        let mut out = Vec::with_capacity(reply.len() + 20 * blocks.len());
        let mut shown = Vec::with_capacity(blocks.len());
        let mut at = 0;
        for block in blocks {
            let range = block.start as usize..block.end as usize;
            at = range.end;
            let (line, value) = split_line(&reply[range]);
            let start = out.len() as u32;
            self.show_line(Shape::Values, line, &mut out);
            out.extend_from_slice(value);
            let end = out.len() as u32;
            shown.push(Block {
                start,
                end,
                ..*block
            });
        }
        out.extend_from_slice(&reply[at..]);
        (out, shown)
    }
}

#[inline]
fn in_packet(packet: &mut [u8], change: impl Fn(u64) -> u64) {
    if let Some(cas) = packet.get_mut(CAS)
        && let Ok(bytes) = <[u8; 8]>::try_from(&*cas)
    {
        cas.copy_from_slice(&change(u64::from_be_bytes(bytes)).to_be_bytes());
    }
}

/// The first line of a reply, and what stands behind it.
pub(super) fn split_line(reply: &[u8]) -> (&[u8], &[u8]) {
    let end = protocol::text::line_len(reply).unwrap_or(reply.len());
    reply.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Uniques {
        Uniques::of(&Member::new(name.parse().expect("a node")))
    }

    #[test]
    fn each_number_has_one_other() {
        let (a, b) = (of("10.0.0.1:11211"), of("10.0.0.2:11211"));
        assert_ne!(a, b);
        let turns = [a, b, Uniques { turn: 0 }, Uniques { turn: LAST - 1 }];
        for node in turns {
            for number in [0, 1, 2, 57, LAST - 1, LAST, LAST + 1, 1 << 53, u64::MAX] {
                assert_eq!(node.asked(node.shown(number)), number);
                assert_eq!(node.shown(node.asked(number)), number);
                assert_eq!(node.shown(number) > LAST, number > LAST);
                assert_eq!(node.shown(number) == 0, number == 0);
            }
        }
        assert_ne!(a.shown(1), b.shown(1));
        // The later store has the higher number.
        assert_eq!(a.shown(2), a.shown(1) + 1);
    }

    #[test]
    fn lines_show_them() {
        let node = Uniques { turn: 700 };
        let seen = 705;
        for (shape, line, shown) in [
            (Shape::Values, "VALUE k 1 5 5\r\n", "VALUE k 1 5 {}\r\n"),
            (Shape::Values, "VALUE 5 5 5\r\n", "VALUE 5 5 5\r\n"),
            (
                Shape::Values,
                "CLIENT_ERROR a b c 5\r\n",
                "CLIENT_ERROR a b c 5\r\n",
            ),
            (Shape::Meta, "HD c5 Oc5 kc5\r\n", "HD c{} Oc5 kc5\r\n"),
            (Shape::Meta, "VA 5 f5 c5 s5\r\n", "VA 5 f5 c{} s5\r\n"),
            (Shape::Meta, "HD c5\r\n", "HD c{}\r\n"),
            (Shape::Meta, "HD c\r\n", "HD c\r\n"),
            (Shape::Meta, "CLIENT_ERROR c5\r\n", "CLIENT_ERROR c5\r\n"),
            (
                Shape::Line,
                "ME cas=5 exp=-1 cas=5 size=5\r\n",
                "ME cas=5 exp=-1 cas={} size=5\r\n",
            ),
            (Shape::Line, "EN\r\n", "EN\r\n"),
        ] {
            let mut out = Vec::new();
            node.show_line(shape, line.as_bytes(), &mut out);
            let shown = shown.replace("{}", &seen.to_string());
            assert_eq!(String::from_utf8(out).expect("text"), shown);
        }
        let reply = b"VALUE a 0 3 5\r\n5 5\r\nVALUE b 0 1 0\r\nx\r\nEND\r\n";
        let block = |start, end, mark| Block { start, end, mark };
        let (shown, blocks) = node.show_values(reply, &[block(0, 20, 1), block(20, 38, 2)]);
        let long = format!("VALUE a 0 3 {seen}\r\n5 5\r\n");
        assert_eq!(shown, [long.as_bytes(), &reply[20..]].concat());
        let at = long.len() as u32;
        assert_eq!(blocks, [block(0, at, 1), block(at, at + 18, 2)]);
        let mut packet = [0; HEADER_LEN];
        node.show_in_packet(&mut packet);
        assert_eq!(packet, [0; HEADER_LEN]);
        packet[23] = 5;
        node.show_in_packet(&mut packet);
        assert_eq!((packet[22], packet[23]), (2, 193));
        node.ask_in_packet(&mut packet);
        assert_eq!((packet[22], packet[23]), (0, 5));
        node.ask_in_packet(&mut packet[..20]);
    }
}
