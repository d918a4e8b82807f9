//! Writes blocks.

use std::io::{self, IoSlice, Write};

use crate::block::{BLOCK_BYTES_MAX, BlockHead, BlockKind};
use crate::head::{FileHead, HEAD_BYTES};
use crate::record::{Meta, Pieces, RECORD_BYTES, push, split_long};

/// What all blocks tell of the moment they are written at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stamp {
    /// The moment that the times of records count from, in seconds since 1970.
    pub epoch_unix_s: i64,
    /// The last CAS unique that was given out.
    pub cas_last: u64,
}

/// Records on their way into a block.
#[derive(Debug, Default)]
pub struct Batch {
    raw: Vec<u8>,
    count: u32,
    oldest: u32,
    newest: u32,
}

impl Batch {
    /// None yet, with room for a block.
    pub fn with_room() -> Self {
        Batch {
            raw: Vec::with_capacity(BLOCK_BYTES_MAX),
            ..Batch::default()
        }
    }

    /// True if a whole item with a key and a value of these lengths can be added.
    pub fn has_room(&self, key_len: usize, value_len: usize) -> bool {
        self.raw.len() + RECORD_BYTES + key_len + value_len <= BLOCK_BYTES_MAX
    }

    /// Adds an item, which has room.
    pub fn item<'p>(&mut self, key: &[u8], meta: &Meta, value_len: u32, value: impl Pieces<'p>) {
        push::item(&mut self.raw, key, meta, value_len, value);
        self.saw(meta.accessed_at);
    }

    fn saw(&mut self, accessed_at: u32) {
        if self.count == 0 {
            (self.oldest, self.newest) = (accessed_at, accessed_at);
        }
        self.oldest = self.oldest.min(accessed_at);
        self.newest = self.newest.max(accessed_at);
        self.count += 1;
    }

    /// True if there is no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many records there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    fn clear(&mut self) {
        self.raw.clear();
        self.count = 0;
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Compressed blocks, if blocks are compressed.
    packed: Option<Vec<u8>>,
    next: u64,
    bytes: u64,
    /// Blocks of values that need several, and of logs.
    own: Batch,
}

impl<W: Write> Writer<W> {
    /// Begins a file. Blocks that become smaller for it are `compressed`.
    pub fn begin(mut out: W, head: &FileHead, compressed: bool) -> io::Result<Self> {
        out.write_all(&head.to_bytes())?;
        Ok(Writer {
            out,
            packed: compressed.then(Vec::new),
            next: 0,
            bytes: HEAD_BYTES as u64,
            own: Batch::default(),
        })
    }

    /// Goes on in a file that has so many bytes and whole blocks.
    pub fn go_on(out: W, bytes: u64, blocks: u64) -> Self {
        Writer {
            out,
            packed: None,
            next: blocks,
            bytes,
            own: Batch::default(),
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blocks written so far.
    pub fn blocks(&self) -> u64 {
        self.next
    }

    /// What is written to.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Writes the records of `batch` as a block, and empties it. An empty one is no block.
    pub fn block(&mut self, batch: &mut Batch, stamp: Stamp) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let written = self.put(BlockKind::Records, batch, stamp);
        batch.clear();
        written
    }

    /// Writes an item whose value is too large for a block, of the pieces of the value.
    pub fn long<'p>(
        &mut self,
        key: &[u8],
        meta: &Meta,
        value_len: u32,
        value: impl Pieces<'p>,
        stamp: Stamp,
    ) -> io::Result<()> {
        let mut own = std::mem::take(&mut self.own);
        own.raw.reserve(BLOCK_BYTES_MAX);
        let written = self.put_long(&mut own, key, meta, value_len, value, stamp);
        own.clear();
        self.own = own;
        written
    }

    fn put_long<'p>(
        &mut self,
        own: &mut Batch,
        key: &[u8],
        meta: &Meta,
        value_len: u32,
        value: impl Pieces<'p>,
        stamp: Stamp,
    ) -> io::Result<()> {
        let mut value = value.filter(|piece| !piece.is_empty());
        let mut piece = value.next().unwrap_or_default();
        let (mut offset, mut kind) = (0, BlockKind::Records);
        loop {
            own.clear();
            match kind {
                BlockKind::Records => push::begun(&mut own.raw, key, meta, value_len),
                _ => push::part(&mut own.raw, offset),
            }
            own.saw(meta.accessed_at);
            let begin = own.raw.len();
            while own.raw.len() < BLOCK_BYTES_MAX && !piece.is_empty() {
                let room = BLOCK_BYTES_MAX - own.raw.len();
                let (now, later) = piece.split_at(piece.len().min(room));
                own.raw.extend_from_slice(now);
                piece = if later.is_empty() {
                    value.next().unwrap_or_default()
                } else {
                    later
                };
            }
            let part = (own.raw.len() - begin) as u32;
            push::set_part_len(&mut own.raw, part);
            self.put(kind, own, stamp)?;
            (offset, kind) = (offset + part, BlockKind::Continued);
            if piece.is_empty() {
                return Ok(());
            }
        }
    }

    /// Writes records that [`push`] wrote, in as many blocks as they take.
    pub fn records(&mut self, mut records: &[u8], stamp: Stamp) -> io::Result<()> {
        while !records.is_empty() {
            let (mut end, mut count) = (0, 0);
            while let Some(rest) = records.get(end..)
                && !rest.is_empty()
            {
                let (record, _) = split_long(rest);
                if end + record.bytes.len() > BLOCK_BYTES_MAX {
                    break;
                }
                end += record.bytes.len();
                count += 1;
            }
            if count == 0 {
                let (record, rest) = split_long(records);
                let (key, meta, value) = record.item.expect("only an item is so long");
                let pieces = std::iter::once(value);
                self.long(key, &meta, value.len() as u32, pieces, stamp)?;
                records = rest;
                continue;
            }
            let (now, later) = records.split_at(end);
            self.put_raw(BlockKind::Records, now, (count, 0, 0), stamp)?;
            records = later;
        }
        Ok(())
    }

    /// Ends the file; gives what was written to.
    pub fn end(mut self, stamp: Stamp) -> io::Result<W> {
        self.put_raw(BlockKind::End, b"", (0, 0, 0), stamp)?;
        Ok(self.out)
    }

    fn put(&mut self, kind: BlockKind, batch: &Batch, stamp: Stamp) -> io::Result<()> {
        let counts = (batch.count, batch.oldest, batch.newest);
        self.put_raw(kind, &batch.raw, counts, stamp)
    }

    fn put_raw(
        &mut self,
        kind: BlockKind,
        raw: &[u8],
        (count, oldest, newest): (u32, u32, u32),
        stamp: Stamp,
    ) -> io::Result<()> {
        let mut payload = raw;
        if let Some(packed) = &mut self.packed {
            packed.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            let len = lz4_flex::block::compress_into(raw, packed).unwrap_or(raw.len());
            if len < raw.len() {
                payload = &packed[..len];
            }
        }
        let head = BlockHead {
            kind,
            compressed: payload.len() < raw.len(),
            nth: self.next,
            count,
            raw_len: raw.len() as u32,
            stored_len: payload.len() as u32,
            oldest,
            newest,
            epoch_unix_s: stamp.epoch_unix_s,
            cas_last: stamp.cas_last,
        };
        write_both(&mut self.out, &head.before(payload), payload)?;
        self.next += 1;
        self.bytes += (HEAD_BYTES + payload.len()) as u64;
        Ok(())
    }
}

/// Writes one behind the other, with one call if the system takes it all.
fn write_both(out: &mut impl Write, head: &[u8], payload: &[u8]) -> io::Result<()> {
    let mut slices = [IoSlice::new(head), IoSlice::new(payload)];
    let mut left = &mut slices[..];
    let mut total = head.len() + payload.len();
    while total > 0 {
        match out.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                total -= n;
                IoSlice::advance_slices(&mut left, n);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
