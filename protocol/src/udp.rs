//! The frame in front of each UDP datagram, of requests and replies alike.
//!
//! ```text
//!  0          2          4          6          8
//!  | request  | sequence | total    | reserved | data, up to 1392 bytes in a reply
//!  | id       | number   | of them  | 0        |            (numbers are big-endian)
//! ```
//!
//! A client picks the request id and finds it in every datagram of the reply; the reply's data is that of its datagrams
//! in the order of their sequence numbers.

/// Bytes of the frame.
pub const FRAME_BYTES: usize = 8;
/// The largest datagram of a reply, its frame counted: what passes an Ethernet with some tunnels on the way.
pub const DATAGRAM_BYTES_MAX: usize = 1400;
/// The data of one datagram of a reply.
pub const DATA_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - FRAME_BYTES;

/// A frame. The reserved bytes are 0 when written and not looked at when read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What the client knows its request by.
    pub request_id: u16,
    /// The datagram's place, from 0.
    pub sequence: u16,
    /// Datagrams of the message.
    pub total: u16,
}

impl Frame {
    /// Takes a datagram apart; `None` if there is no data behind the frame.
    pub fn split(datagram: &[u8]) -> Option<(Frame, &[u8])> {
        let (frame, data) = datagram.split_first_chunk::<FRAME_BYTES>()?;
        let [id_0, id_1, sequence_0, sequence_1, total_0, total_1, ..] = *frame;
        let frame = Frame {
            request_id: u16::from_be_bytes([id_0, id_1]),
            sequence: u16::from_be_bytes([sequence_0, sequence_1]),
            total: u16::from_be_bytes([total_0, total_1]),
        };
        (!data.is_empty()).then_some((frame, data))
    }

    /// The frame as it is sent.
    pub fn bytes(self) -> [u8; FRAME_BYTES] {
        let [id_0, id_1] = self.request_id.to_be_bytes();
        let [sequence_0, sequence_1] = self.sequence.to_be_bytes();
        let [total_0, total_1] = self.total.to_be_bytes();
        [id_0, id_1, sequence_0, sequence_1, total_0, total_1, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let frame = Frame {
            request_id: 0x0102,
            sequence: 0x0304,
            total: 0x0506,
        };
        let datagram = [&frame.bytes()[..], b"get a\r\n"].concat();
        assert_eq!(datagram[..8], [1, 2, 3, 4, 5, 6, 0, 0]);
        assert_eq!(Frame::split(&datagram), Some((frame, &b"get a\r\n"[..])));
    }

    #[test]
    fn without_data_there_is_no_message() {
        for len in 0..=FRAME_BYTES {
            assert_eq!(Frame::split(&vec![1; len]), None, "{len}");
        }
        assert!(Frame::split(&[0; FRAME_BYTES + 1]).is_some());
    }
}
