//! Memory files that somebody has changed: refused, begun anew, or taken up with nothing but what is true, and never a crash.
//!
//! The first byte says whether the server before ended well (bit 0) and whether the next one has other chunk sizes (bit 1); each
//! five bytes behind it change one byte of the file: where, among those that are not zeros, and by what.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ketch::cache::{At, How, ItemSpec, Opened};
use ketch::clock::{Moment, RelTime};

use crate::server::settings;

const BOOT: u64 = 7;
const BLOCK: usize = 4096;
const KEYS: usize = 120;

/// A memory file, without the zeros in it.
struct Image {
    len: u64,
    blocks: Vec<(u64, Vec<u8>)>,
}

fn path() -> PathBuf {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "ketch-fuzz-{}-{}",
        std::process::id(),
        MADE.fetch_add(1, Relaxed)
    );
    // A tmpfs where there is one: on a disk an input costs ten times as much.
    let tmpfs = std::path::Path::new("/dev/shm");
    match tmpfs.is_dir() {
        true => tmpfs.join(name),
        false => std::env::temp_dir().join(name),
    }
}

fn value(n: usize) -> Vec<u8> {
    let len = if n.is_multiple_of(40) { 50_000 } else { n * 9 };
    (0..len).map(|at| (at + n) as u8).collect()
}

fn moment() -> Moment {
    Moment::read(10_000, BOOT)
}

/// The file of a server that ended well, or was killed.
fn made(ended_well: bool) -> Image {
    let path = path();
    let settings = settings("-m 4");
    let opened = ketch::server::open(&settings, &path, BOOT).expect("a new file");
    let cache = opened.cache;
    let at = At::new(RelTime(10));
    for n in 1..KEYS {
        let (key, value) = (format!("k{n}").into_bytes(), value(n));
        let spec = ItemSpec {
            key: &key,
            key_binary: false,
            client_flags: n as u32,
            expires_at: RelTime::NEVER,
            value_len: value.len() as u32,
        };
        let mut new = cache.create(&spec, at).expect("memory");
        new.write(&value);
        cache.entry(cache.sought(&key), at).put(new, None);
    }
    if ended_well {
        cache.close(&moment()).expect("closed");
    } else {
        cache.note_time(&moment());
    }
    drop(cache);
    let file = File::open(&path).expect("the file");
    let len = file.metadata().expect("its length").len();
    let mut blocks = Vec::new();
    for at in (0..len).step_by(BLOCK) {
        let mut block = vec![0; BLOCK];
        let n = file.read_at(&mut block, at).expect("its bytes");
        block.truncate(n);
        if block.iter().any(|&byte| byte != 0) {
            blocks.push((at, block));
        }
    }
    std::fs::remove_file(path).expect("removed");
    Image { len, blocks }
}

/// See the module.
pub fn run(bytes: &[u8]) {
    static MADE: [OnceLock<Image>; 2] = [OnceLock::new(), OnceLock::new()];
    let Some((&flags, changes)) = bytes.split_first() else {
        return;
    };
    let ended_well = flags & 1 == 0;
    let image = MADE[usize::from(ended_well)].get_or_init(|| made(ended_well));
    let path = path();
    {
        let file = File::create_new(&path).expect("a new file");
        file.set_len(image.len).expect("its length");
        for (at, block) in &image.blocks {
            file.write_all_at(block, *at).expect("written");
        }
        for change in changes.chunks_exact(5) {
            let place = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize;
            let place = place % (image.blocks.len() * BLOCK);
            let (at, block) = &image.blocks[place / BLOCK];
            let Some(byte) = block.get(place % BLOCK) else {
                continue;
            };
            file.write_all_at(&[byte ^ change[4]], at + (place % BLOCK) as u64)
                .expect("written");
        }
    }
    let line = if flags & 2 == 0 {
        "-m 4"
    } else {
        "-m 4 -f 1.5"
    };
    match ketch::server::open(&settings(line), &path, BOOT) {
        Ok(opened) => look(&opened, ended_well),
        Err(refusal) => assert!(refusal.contains("something else"), "{refusal}"),
    }
    std::fs::remove_file(path).expect("removed");
}

/// What is there is true, if the file told by its sums what was changed; and all can be stored anew.
fn look(opened: &Opened, has_sums: bool) {
    let (cache, at) = (&opened.cache, At::new(RelTime(10)));
    let mut there = 0;
    for n in 1..KEYS {
        let key = format!("k{n}").into_bytes();
        let entry = cache.entry(cache.sought(&key), at);
        let Some(item) = entry.item() else { continue };
        there += 1;
        let found = item.value_pieces().collect::<Vec<_>>().concat();
        assert!(!has_sums || found == value(n), "k{n}");
    }
    assert!(opened.restart.how != How::Cold || there == 0);
}
