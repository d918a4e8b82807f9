//! Reads blocks, and finds its way behind damaged ones.

use std::io::{self, Read, Seek, SeekFrom};

use crate::block::{BLOCK_BYTES_MAX, BlockHead, BlockKind, MAGIC};
use crate::head::{FileHead, FileKind, HEAD_BYTES, NotOurs};
use crate::record::Records;

/// Bytes read at once where less is asked for.
const READ_BYTES: usize = 256 << 10;

/// What came of reading a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Blocks whose head held.
    pub blocks: u64,
    /// Blocks that are damaged or missing, as far as their numbers tell.
    pub lost: u64,
    /// Bytes that belong to no block.
    pub skipped_bytes: u64,
    /// The file was written to its end.
    pub is_whole: bool,
}

/// A block whose head holds, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its head.
    pub head: BlockHead,
    /// Where in the file it begins.
    pub at: u64,
    /// The checksum of its payload.
    payload_sum: u32,
}

impl Found {
    /// Where the next one begins.
    pub fn end(&self) -> u64 {
        self.at + HEAD_BYTES as u64 + u64::from(self.head.stored_len)
    }
}

/// A block with its records.
#[derive(Debug, Default)]
pub struct Block {
    raw: Vec<u8>,
}

impl Block {
    /// Its records, in order.
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.raw)
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    head: FileHead,
    /// The bytes of the whole file.
    len: u64,
    /// Where the next block is looked for.
    at: u64,
    /// The number it should have.
    expected: u64,
    /// What has come of it so far.
    pub tally: Tally,
    /// Bytes of the file from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the head of a file that is to be of this kind. The inner error says why it is none.
    pub fn open(mut from: R, kind: FileKind) -> io::Result<Result<Self, NotOurs>> {
        let len = from.seek(SeekFrom::End(0))?;
        let mut reader = Reader {
            from,
            head: FileHead {
                kind,
                segment: 0,
                created_unix_s: 0,
                flush_due_unix_s: 0,
                follows_gap: false,
            },
            len,
            at: HEAD_BYTES as u64,
            expected: 0,
            tally: Tally::default(),
            buffer: Vec::new(),
            buffer_at: 0,
        };
        let head = reader.window(0, HEAD_BYTES.min(len as usize))?;
        match FileHead::parse(head) {
            Ok(head) if head.kind != kind => Ok(Err(NotOurs::Kind)),
            Ok(head) => {
                reader.head = head;
                Ok(Ok(reader))
            }
            Err(reason) => Ok(Err(reason)),
        }
    }

    /// The file's head.
    pub fn head(&self) -> FileHead {
        self.head
    }

    /// The bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.len
    }

    /// Finds the next block; its payload is not read. None at the end, or where the file is cut.
    pub fn find(&mut self) -> io::Result<Option<Found>> {
        while self.len.saturating_sub(self.at) >= HEAD_BYTES as u64 && !self.tally.is_whole {
            let at = self.at;
            let Some((head, payload_sum)) = BlockHead::parse(self.window(at, HEAD_BYTES)?) else {
                self.skip_to_head()?;
                continue;
            };
            let found = Found {
                head,
                at,
                payload_sum,
            };
            if found.end() > self.len {
                // Cut inside of it.
                break;
            }
            self.at = found.end();
            if head.nth < self.expected {
                // Nobody writes a number twice.
                self.tally.lost += 1;
                continue;
            }
            self.tally.lost = self.tally.lost.saturating_add(head.nth - self.expected);
            self.expected = head.nth.saturating_add(1);
            if head.kind == BlockKind::End {
                self.tally.is_whole = true;
                break;
            }
            self.tally.blocks += 1;
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// The block that begins at `at`, if it is whole and has this number.
    pub fn find_at(&mut self, at: u64, nth: u64) -> io::Result<Option<Found>> {
        if self.len.saturating_sub(at) < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let parsed = BlockHead::parse(self.window(at, HEAD_BYTES)?);
        Ok(parsed.and_then(|(head, payload_sum)| {
            let found = Found {
                head,
                at,
                payload_sum,
            };
            (head.nth == nth && found.end() <= self.len).then_some(found)
        }))
    }

    /// Reads the records of a block; false, and counted as lost, if it is damaged.
    pub fn read(&mut self, found: &Found, block: &mut Block) -> io::Result<bool> {
        let head = found.head;
        let stored = self.window(found.at + HEAD_BYTES as u64, head.stored_len as usize)?;
        let mut holds = crc32c::crc32c(stored) == found.payload_sum;
        if holds {
            block.raw.clear();
            if head.compressed {
                block.raw.resize(head.raw_len as usize, 0);
                let len = lz4_flex::block::decompress_into(stored, &mut block.raw);
                holds = len.is_ok_and(|len| len == head.raw_len as usize);
            } else {
                block.raw.extend_from_slice(stored);
            }
            holds = holds && Records::hold(&block.raw, head.kind, head.count);
        }
        if !holds {
            block.raw.clear();
            self.tally.lost += 1;
        }
        Ok(holds)
    }

    /// Finds and reads the next block that is not damaged.
    pub fn next(&mut self, block: &mut Block) -> io::Result<Option<Found>> {
        while let Some(found) = self.find()? {
            if self.read(&found, block)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Where the last block that was found ends.
    pub fn end_of_found(&self) -> u64 {
        self.at
    }

    /// How many blocks there are up to there, by their numbers.
    pub fn blocks_up_to_there(&self) -> u64 {
        self.expected
    }

    /// Goes on to where a head may begin.
    fn skip_to_head(&mut self) -> io::Result<()> {
        let (from, most) = (self.at + 1, READ_BYTES as u64);
        let len = (self.len - from).min(most) as usize;
        let bytes = self.window(from, len)?;
        let next = bytes
            .windows(MAGIC.len())
            .position(|window| window == MAGIC);
        // What may be the beginning of one is looked at again.
        let skipped = 1 + next.unwrap_or(len.saturating_sub(MAGIC.len() - 1)) as u64;
        self.tally.skipped_bytes += skipped;
        self.at += skipped;
        Ok(())
    }

    /// Bytes of memory that it has of the file.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self, block: &Block) -> usize {
        self.buffer.capacity() + block.raw.capacity()
    }

    /// The bytes of the file from `at` on, all of which are there.
    fn window(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        debug_assert!(len <= BLOCK_BYTES_MAX && at + len as u64 <= self.len);
        let have = self.buffer.len() as u64;
        if at < self.buffer_at || at + len as u64 > self.buffer_at + have {
            let kept = at.checked_sub(self.buffer_at).filter(|&from| from < have);
            match kept {
                Some(from) => drop(self.buffer.drain(..from as usize)),
                None => self.buffer.clear(),
            }
            self.buffer_at = at;
            let have = self.buffer.len();
            self.from.seek(SeekFrom::Start(at + have as u64))?;
            let rest = (self.len - at) as usize - have;
            let more = (len - have).max(READ_BYTES).min(rest);
            self.buffer.resize(have + more, 0);
            self.from.read_exact(&mut self.buffer[have..])?;
        }
        let from = (at - self.buffer_at) as usize;
        Ok(&self.buffer[from..from + len])
    }
}
