//! Binary packets: built to be sent, and taken apart when they come.

use crate::conn::{Conn, escape};

/// Bytes of a header.
const HEADER_LEN: usize = 24;

/// The opcodes. A `Q` at the end stands for quiet.
#[allow(missing_docs)]
pub mod op {
    pub const GET: u8 = 0x00;
    pub const SET: u8 = 0x01;
    pub const ADD: u8 = 0x02;
    pub const REPLACE: u8 = 0x03;
    pub const DELETE: u8 = 0x04;
    pub const INCR: u8 = 0x05;
    pub const DECR: u8 = 0x06;
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
    pub const INCRQ: u8 = 0x15;
    pub const DECRQ: u8 = 0x16;
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
}

/// A request, or a reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Packet {
    pub opcode: u8,
    /// Of a reply.
    pub status: u16,
    pub opaque: u32,
    pub cas: u64,
    pub extras: Vec<u8>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// A request without extras.
pub fn packet(opcode: u8, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Packet {
    Packet {
        opcode,
        key: key.as_ref().to_vec(),
        value: value.as_ref().to_vec(),
        ..Packet::default()
    }
}

/// A store with client flags and exptime.
pub fn store(opcode: u8, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Packet {
    packet(opcode, key, value).numbers(&[7, 0])
}

/// A count; an exptime of `u32::MAX` creates nothing.
pub fn count(opcode: u8, key: &str, delta: u64, initial: u64, exptime: u32) -> Packet {
    let mut packet = packet(opcode, key, "");
    packet.extras.extend_from_slice(&delta.to_be_bytes());
    packet.extras.extend_from_slice(&initial.to_be_bytes());
    packet.extras.extend_from_slice(&exptime.to_be_bytes());
    packet
}

impl Packet {
    /// With these numbers of four bytes as extras.
    pub fn numbers(mut self, numbers: &[u32]) -> Self {
        self.extras = numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        self
    }

    /// With this CAS unique.
    pub fn cas(mut self, cas: u64) -> Self {
        self.cas = cas;
        self
    }

    /// With this opaque.
    pub fn opaque(mut self, opaque: u32) -> Self {
        self.opaque = opaque;
        self
    }

    /// The request as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let body_len = self.extras.len() + self.key.len() + self.value.len();
        let body = [&self.extras[..], &self.key, &self.value].concat();
        let lens = (self.extras.len(), self.key.len(), body_len);
        self.bytes_lying(lens, &body)
    }

    /// With any lengths of extras, key and body in its header, and any body behind it.
    pub fn bytes_lying(&self, lens: (usize, usize, usize), body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80, self.opcode];
        bytes.extend_from_slice(&(lens.1 as u16).to_be_bytes());
        bytes.extend_from_slice(&[lens.0 as u8, 0, 0, 0]);
        bytes.extend_from_slice(&(lens.2 as u32).to_be_bytes());
        bytes.extend_from_slice(&self.opaque.to_be_bytes());
        bytes.extend_from_slice(&self.cas.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// A reply in one line: opcode, status, `c` for a CAS unique, then what is not empty.
    pub fn show(&self) -> String {
        let mut line = format!("{:02x} {:02x}", self.opcode, self.status);
        if self.cas != 0 {
            line += " c";
        }
        for (name, bytes) in [("x", &self.extras), ("k", &self.key), ("v", &self.value)] {
            if !bytes.is_empty() {
                line += &format!(" {name}={}", escape(bytes));
            }
        }
        line
    }
}

impl Conn {
    /// The next reply.
    #[track_caller]
    pub fn expect_packet(&mut self) -> Packet {
        let header = self.take(HEADER_LEN);
        assert_eq!(header[0], 0x81, "the magic of {}", escape(&header));
        assert_eq!(header[5], 0, "the data type of {}", escape(&header));
        let u32_at = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four"));
        let key_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let extras_len = usize::from(header[4]);
        let mut extras = self.take(u32_at(8) as usize);
        let value = extras.split_off(extras_len + key_len);
        let key = extras.split_off(extras_len);
        Packet {
            opcode: header[1],
            status: u16::from_be_bytes([header[6], header[7]]),
            opaque: u32_at(12),
            cas: u64::from_be_bytes(header[16..].try_into().expect("eight")),
            extras,
            key,
            value,
        }
    }

    /// Sends a request that is answered by one packet.
    #[track_caller]
    pub fn ask_packet(&mut self, request: &Packet) -> Packet {
        self.send(request.bytes());
        let reply = self.expect_packet();
        assert_eq!(
            (reply.opcode, reply.opaque),
            (request.opcode, request.opaque)
        );
        reply
    }

    /// Sends a request and compares the reply as [`Packet::show`] has it; gives the CAS unique.
    #[track_caller]
    pub fn round_packet(&mut self, request: &Packet, reply: &str) -> u64 {
        let got = self.ask_packet(request);
        assert_eq!(got.show(), reply, "{}", self.note);
        got.cas
    }

    /// All replies before that of a no-op.
    #[track_caller]
    pub fn packets_before_noop(&mut self) -> Vec<Packet> {
        self.send(packet(op::NOOP, "", "").opaque(u32::MAX).bytes());
        let mut packets = Vec::new();
        loop {
            let packet = self.expect_packet();
            if (packet.opcode, packet.opaque) == (op::NOOP, u32::MAX) {
                return packets;
            }
            packets.push(packet);
        }
    }
}
