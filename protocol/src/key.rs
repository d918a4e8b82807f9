//! A key as a request has it.

use crate::base64;
use crate::limits::KEY_LEN_MAX;

/// A key as it stands in the read buffer: plain, or base64 (meta flag `b`) and checked to decode to 1-250 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'b> {
    /// The bytes as the client sent them.
    pub text: &'b [u8],
    /// True if `text` is base64.
    pub base64: bool,
}

impl<'b> Key<'b> {
    /// A plain key.
    pub fn plain(text: &'b [u8]) -> Self {
        Key {
            text,
            base64: false,
        }
    }

    /// True if text can only name it in base64: binary keys may be any bytes.
    #[inline]
    pub fn needs_base64(&self) -> bool {
        // Without an end before the last byte, many are looked at together.
        let odd = |byte: u8| (byte <= b' ') | (byte == 0x7f);
        self.base64 || self.text.iter().fold(false, |any, &byte| any | odd(byte))
    }

    /// The key's real bytes; a base64 key is decoded into `room`.
    #[inline]
    pub fn bytes<'s>(&self, room: &'s mut KeyBuf) -> &'s [u8]
    where
        'b: 's,
    {
        if self.base64 {
            room.decode(self.text)
        } else {
            self.text
        }
    }
}

/// Room for a decoded key. It costs nothing as long as no key is decoded.
#[derive(Debug, Default)]
pub struct KeyBuf(Option<[u8; KEY_LEN_MAX]>);

impl KeyBuf {
    #[cold]
    fn decode(&mut self, text: &[u8]) -> &[u8] {
        let room = self.0.insert([0; KEY_LEN_MAX]);
        let len = base64::decode(text, room).expect("the parser has checked that the key decodes");
        &room[..len]
    }
}
