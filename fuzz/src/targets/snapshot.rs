//! Files of snapshots and logs: any bytes as a file, and any bytes as the payload of a block whose checksums hold. They are read
//! and loaded into a store, which is sound afterwards and shows what it has.
use std::cell::RefCell;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use ketch::cache::{CopiedValue, CopyCursor};
use ketch::snapshot::{Files, load};
use ketch::state::Shared;
use snapshot_file::{
    BLOCK_BYTES_MAX, Block, BlockHead, BlockKind, FileHead, FileKind, Reader, Record,
};

use crate::server::server;

/// A store, and a file that is loaded into it.
struct Loading {
    shared: Shared,
    path: PathBuf,
}

impl Drop for Loading {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

thread_local! {
    static LOADING: RefCell<Option<Loading>> = const { RefCell::new(None) };
}

fn loading() -> Loading {
    let name = format!(
        "ketch-fuzz-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    Loading {
        shared: server("-t 1 -m 16 -I 256k -n 8"),
        path: std::env::temp_dir().join(name),
    }
}

/// A file of one block with these bytes in it, and where a block may be continued, of two.
fn framed(bytes: &[u8], kind: FileKind) -> Vec<u8> {
    let (how, payload) = bytes.split_at(bytes.len().min(4));
    let byte = |at: usize| how.get(at).copied().unwrap_or_default();
    let mut file = head(kind).to_bytes().to_vec();
    for (nth, kind) in [BlockKind::Records, BlockKind::Continued, BlockKind::End]
        .into_iter()
        .enumerate()
    {
        let payload = if kind == BlockKind::End {
            &[][..]
        } else {
            payload
        };
        let head = BlockHead {
            kind,
            compressed: byte(0) & 1 != 0 && kind != BlockKind::End,
            nth: nth as u64,
            count: u32::from(byte(1)),
            raw_len: if byte(0) & 1 != 0 && kind != BlockKind::End {
                payload.len() as u32 + u32::from(byte(2)) * 64
            } else {
                payload.len() as u32
            },
            stored_len: payload.len() as u32,
            oldest: 0,
            newest: u32::from(byte(3)),
            epoch_unix_s: i64::from(byte(3)).wrapping_shl(56),
            cas_last: u64::from(byte(3)).wrapping_shl(56),
        };
        file.extend_from_slice(&head.before(payload));
        file.extend_from_slice(payload);
    }
    file
}

fn head(kind: FileKind) -> FileHead {
    FileHead {
        kind,
        segment: 1,
        created_unix_s: 1,
        flush_due_unix_s: 0,
        follows_gap: false,
    }
}

/// Reads it as a file of this kind: each block is what its head says.
fn read(bytes: &[u8], kind: FileKind) {
    let Ok(mut reader) = Reader::open(Cursor::new(bytes), kind).expect("memory is read") else {
        return;
    };
    let (mut block, mut end) = (Block::default(), 0);
    while let Some(found) = reader.next(&mut block).expect("memory is read") {
        assert!(found.at >= end && found.end() <= bytes.len() as u64);
        end = found.end();
        let (mut count, mut len) = (0, 0);
        for record in block.records() {
            count += 1;
            len += match record {
                Record::Item {
                    key,
                    value_len,
                    value,
                    ..
                } => {
                    assert!(!key.is_empty() && value.len() <= value_len as usize);
                    key.len() + value.len()
                }
                Record::Delete { key, .. } | Record::Touch { key, .. } => key.len(),
                Record::Part { value, .. } => value.len(),
                Record::Flush { .. } => 0,
            };
        }
        assert_eq!(count, found.head.count);
        assert!(len <= BLOCK_BYTES_MAX);
    }
}

/// Loads it, and looks at all that came of it.
fn loaded(bytes: &[u8]) {
    LOADING.with_borrow_mut(|kept| {
        let Loading { shared, path } = kept.get_or_insert_with(loading);
        fs::write(&*path, bytes).expect("a temporary file");
        let loaded = load(&Files::at(path), &shared.cache, &shared.clock, 1);
        let (mut cursor, mut items) = (CopyCursor::default(), 0);
        while !shared
            .cache
            .copy_step(&mut cursor, shared.clock.now(), |item, value| {
                assert!((1..=250).contains(&item.key().len()));
                let len: usize = match &value {
                    CopiedValue::Small(value) => value.len(),
                    CopiedValue::Large(value) => value.unsent(usize::MAX).map(<[u8]>::len).sum(),
                };
                assert_eq!(len, item.value_len());
                items += 1;
            })
        {}
        if let Ok(Some(loaded)) = loaded {
            assert!(items <= loaded.items, "more than was loaded");
        }
        shared.cache.unlink_all();
    });
}

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else {
        return;
    };
    match how % 4 {
        0 => {
            read(rest, FileKind::Snapshot);
            read(rest, FileKind::Log);
            loaded(rest);
        }
        1 => read(&framed(rest, FileKind::Log), FileKind::Log),
        _ => {
            let file = framed(rest, FileKind::Snapshot);
            read(&file, FileKind::Snapshot);
            loaded(&file);
        }
    }
}
