use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;

const HEAD: FileHead = FileHead {
    kind: FileKind::Snapshot,
    segment: 7,
    created_unix_s: 1_700_000_000,
    flush_due_unix_s: 0,
    follows_gap: false,
};

const STAMP: Stamp = Stamp {
    epoch_unix_s: 1_600_000_000,
    cas_last: 99,
};

type Items = BTreeMap<Vec<u8>, (Meta, Vec<u8>)>;

fn meta(n: u32) -> Meta {
    Meta {
        marks: Marks(Marks::FETCHED).with_place(2, 1),
        client_flags: n * 3,
        cas: u64::from(n) << 33,
        expires_at: n % 2 * 1000,
        accessed_at: 10 + n,
    }
}

fn value(n: u32, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32 / 7 * n) as u8).collect()
}

/// A file of `count` items in blocks of five, every tenth of them so long that it takes several blocks.
fn file(count: u32, long: usize, compressed: bool) -> (Vec<u8>, Items) {
    let mut items = Items::new();
    let mut writer = Writer::begin(Vec::new(), &HEAD, compressed).unwrap();
    let mut batch = Batch::default();
    for n in 1..=count {
        let key = format!("key {n}").into_bytes();
        let value = value(n, if n % 10 == 0 { long } else { n as usize * 3 });
        let len = value.len() as u32;
        if batch.has_room(key.len(), value.len()) && value.len() < long {
            batch.item(&key, &meta(n), len, std::iter::once(&value[..]));
        } else {
            let pieces = value.chunks(700_001);
            writer.long(&key, &meta(n), len, pieces, STAMP).unwrap();
        }
        if n % 5 == 0 {
            writer.block(&mut batch, STAMP).unwrap();
        }
        items.insert(key, (meta(n), value));
    }
    writer.block(&mut batch, STAMP).unwrap();
    (writer.end(STAMP).unwrap(), items)
}

/// All whole items of a file.
fn read(bytes: &[u8]) -> Result<(Items, Tally), NotOurs> {
    let mut reader = Reader::open(Cursor::new(bytes), FileKind::Snapshot).unwrap()?;
    let (mut items, mut block) = (Items::new(), Block::default());
    let mut open: Option<(Vec<u8>, Meta, Vec<u8>, usize)> = None;
    while let Some(found) = reader.next(&mut block).unwrap() {
        assert!(reader.held_bytes(&block) <= 5 * BLOCK_BYTES_MAX, "Sf3");
        assert_eq!(block.records().count(), found.head.count as usize, "Sf1");
        for record in block.records() {
            match record {
                Record::Item {
                    key,
                    meta,
                    value_len,
                    value,
                } => open = Some((key.into(), meta, value.into(), value_len as usize)),
                Record::Part { offset, value } => {
                    let Some(item) = &mut open else { continue };
                    if item.2.len() == offset as usize {
                        item.2.extend_from_slice(value);
                    }
                }
                other => panic!("{other:?} in a snapshot"),
            }
            if let Some((key, meta, value, len)) = &open
                && value.len() == *len
            {
                items.insert(key.clone(), (*meta, value.clone()));
                open = None;
            }
        }
    }
    Ok((items, reader.tally))
}

#[test]
fn what_was_written_is_read() {
    for compressed in [false, true] {
        let (bytes, items) = file(43, 2_500_000, compressed);
        let (read, tally) = read(&bytes).unwrap();
        assert_eq!(read.len(), 43);
        assert!(read == items);
        assert_eq!(
            (tally.lost, tally.skipped_bytes, tally.is_whole),
            (0, 0, true)
        );
        assert!(!compressed || bytes.len() < 2_000_000, "{}", bytes.len());
    }
    let (bytes, _) = file(0, 1, false);
    assert_eq!(read(&bytes).unwrap().1.blocks, 0);
}

/// Sf1, Sf2: whatever byte is changed, what is read was written, and what is missing is counted.
#[test]
fn no_flipped_byte_makes_another_item() {
    for compressed in [false, true] {
        let (bytes, items) = file(23, 900, compressed);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let Ok((read, tally)) = read(&bytes) else {
                assert!(at < HEAD_BYTES, "byte {at}: the whole file is refused");
                continue;
            };
            assert!(at >= HEAD_BYTES, "byte {at} of the head is not seen");
            for (key, item) in &read {
                assert_eq!(Some(item), items.get(key), "byte {at}");
            }
            let missing = items.len() - read.len();
            assert!(missing <= 5, "byte {at}: {missing}");
            assert!(tally.lost > 0 || !tally.is_whole, "byte {at}: not counted");
        }
    }
}

/// Sf4.
#[test]
fn a_cut_file_is_read_up_to_its_last_whole_block() {
    let (bytes, items) = file(23, 900, false);
    let mut before = 0;
    for end in 0..bytes.len() {
        let Ok((read, tally)) = read(&bytes[..end]) else {
            assert!(end < HEAD_BYTES);
            continue;
        };
        assert!(!tally.is_whole && tally.lost == 0, "{end}");
        assert!(read.len() >= before, "{end}");
        before = read.len();
        assert!(read.iter().all(|(key, item)| items.get(key) == Some(item)));
    }
    assert_eq!(before, 23, "all but the End block");
}

#[test]
fn blocks_that_are_missing_or_come_again_are_counted() {
    let (bytes, _) = file(40, 120, false);
    let mut reader = Reader::open(Cursor::new(&bytes), FileKind::Snapshot)
        .unwrap()
        .unwrap();
    let mut blocks = Vec::new();
    while let Some(found) = reader.find().unwrap() {
        blocks.push(found.at as usize..found.end() as usize);
    }
    assert!(blocks.len() > 8);
    let mut holed = bytes.clone();
    holed.drain(blocks[2].start..blocks[4].end);
    assert_eq!(read(&holed).unwrap().1.lost, 3);
    let mut twice = bytes.clone();
    twice.splice(
        blocks[3].start..blocks[3].start,
        bytes[blocks[1].clone()].to_vec(),
    );
    let (items, tally) = read(&twice).unwrap();
    assert_eq!((items.len(), tally.lost), (40, 1));
}

#[test]
fn a_file_of_another_kind_or_layout_is_refused() {
    let open = |bytes: &[u8]| {
        let opened = Reader::open(Cursor::new(bytes.to_vec()), FileKind::Log).unwrap();
        opened.err()
    };
    assert_eq!(open(b""), Some(NotOurs::Short));
    assert_eq!(open(&[7; 64]), Some(NotOurs::Magic));
    assert_eq!(open(&HEAD.to_bytes()), Some(NotOurs::Kind));
    let mut newer = HEAD.to_bytes();
    newer[8] = 9;
    head::put_sum(&mut newer);
    assert_eq!(open(&newer), Some(NotOurs::Version(9)));
    let mut damaged = HEAD.to_bytes();
    damaged[17] ^= 1;
    assert_eq!(open(&damaged), Some(NotOurs::Damaged));
    let log = FileHead {
        kind: FileKind::Log,
        ..HEAD
    };
    assert_eq!(open(&log.to_bytes()), None);
}

#[test]
fn what_happened_is_written_in_order_whatever_its_length() {
    let mut records = Vec::new();
    let long = value(3, 3 * BLOCK_BYTES_MAX);
    push::item(
        &mut records,
        b"a",
        &meta(1),
        3,
        std::iter::once(&b"one"[..]),
    );
    push::delete(&mut records, b"a", 5);
    push::item(
        &mut records,
        b"b",
        &meta(2),
        long.len() as u32,
        long.chunks(99_999),
    );
    push::touch(&mut records, b"b", &meta(4));
    push::flush(&mut records, 17);
    let mut writer = Writer::begin(Vec::new(), &HEAD, false).unwrap();
    writer.records(&records, STAMP).unwrap();
    let bytes = writer.end(STAMP).unwrap();

    let mut reader = Reader::open(Cursor::new(bytes), FileKind::Snapshot)
        .unwrap()
        .unwrap();
    let (mut block, mut seen, mut joined) = (Block::default(), Vec::new(), Vec::new());
    while let Some(found) = reader.next(&mut block).unwrap() {
        assert_eq!(found.head.cas_last, STAMP.cas_last);
        for record in block.records() {
            seen.push(match record {
                Record::Item { key, meta, .. } => format!("item {} {}", key[0], meta.accessed_at),
                Record::Delete { key, cas } => format!("delete {} {cas}", key[0]),
                Record::Touch { key, meta } => format!("touch {} {}", key[0], meta.accessed_at),
                Record::Flush { at } => format!("flush {at}"),
                Record::Part { .. } => "part".into(),
            });
            if let Record::Item {
                key: b"b", value, ..
            }
            | Record::Part { value, .. } = record
            {
                joined.extend_from_slice(value);
            }
        }
    }
    assert_eq!(
        seen,
        [
            "item 97 11",
            "delete 97 5",
            "item 98 12",
            "part",
            "part",
            "part",
            "touch 98 14",
            "flush 17"
        ]
    );
    assert!(joined == long);
}
