//! The turns of a verb that makes an item (`update`) in a model of the store, under a scheduler that tries orders of threads:
//! one stripe, one key, and chunks that keep what their last owner wrote.
//!
//! ```text
//!  Turns::Anew      what `update` does: no lock is let go and taken again, the verb begins anew
//!  Turns::ByHandle  what it must not do: go on if the item still has the chunk it had
//! ```
//!
//! The whole store is run through the same steps by `command::race_tests`, one order after the other.

use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// Orders tried for each pair of verbs.
const ORDERS: usize = 2000;
/// What lies in a chunk that was never the key's.
const OF_OTHERS: u8 = b'S';
/// Bytes of a small chunk, and of a large one.
const SIZES: [usize; 2] = [4, 8];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Turns {
    Anew,
    ByHandle,
}

#[derive(Debug)]
struct Chunk {
    handle: usize,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Item {
    chunk: Chunk,
    len: usize,
}

impl Item {
    fn value(&self) -> Vec<u8> {
        self.chunk.bytes[..self.len].to_vec()
    }
}

#[derive(Debug, Default)]
struct Model {
    /// The stripe, and its one key.
    stripe: Mutex<Option<Item>>,
    /// Free chunks; the last freed is the first handed out.
    free: Mutex<Vec<Chunk>>,
    handles: Mutex<usize>,
}

impl Model {
    /// A chunk that holds `len`, if one is at hand.
    fn at_hand(&self, len: usize) -> Option<Chunk> {
        let size = SIZES.into_iter().find(|&size| len <= size)?;
        let mut free = self.free.lock().unwrap();
        let at = free.iter().rposition(|chunk| chunk.bytes.len() == size)?;
        Some(free.remove(at))
    }

    /// A chunk that holds `len`, whatever it takes: one that another item gives up.
    fn by_force(&self, len: usize) -> Chunk {
        if let Some(chunk) = self.at_hand(len) {
            return chunk;
        }
        let mut handles = self.handles.lock().unwrap();
        *handles += 1;
        let size = SIZES
            .into_iter()
            .find(|&size| len <= size)
            .expect("it fits");
        Chunk {
            handle: *handles,
            bytes: vec![OF_OTHERS; size],
        }
    }

    fn free(&self, item: Option<Item>) {
        self.free
            .lock()
            .unwrap()
            .extend(item.map(|item| item.chunk));
    }

    fn set(&self, value: &[u8]) {
        let mut chunk = self.by_force(value.len());
        chunk.bytes[..value.len()].copy_from_slice(value);
        let item = Item {
            chunk,
            len: value.len(),
        };
        let old = self.stripe.lock().unwrap().replace(item);
        self.free(old);
    }

    fn delete(&self) {
        let old = self.stripe.lock().unwrap().take();
        self.free(old);
    }

    /// In place, as a counter is that keeps its length.
    fn overwrite(&self, byte: u8) {
        if let Some(item) = &mut *self.stripe.lock().unwrap() {
            item.chunk.bytes[0] = byte;
        }
    }

    fn append(&self, turns: Turns, tail: &[u8]) {
        let mut spare: Option<Chunk> = None;
        let mut seen: Option<(usize, usize)> = None;
        loop {
            let mut stripe = self.stripe.lock().unwrap();
            let Some(old) = &*stripe else {
                break;
            };
            let mut len = old.len + tail.len();
            if let Some((handle, seen_len)) = seen
                && handle == old.chunk.handle
            {
                len = seen_len;
            }
            let fits = |chunk: &Chunk| {
                SIZES.into_iter().find(|&size| len <= size) == Some(chunk.bytes.len())
            };
            let Some(mut chunk) = spare
                .take_if(|chunk| fits(chunk))
                .or_else(|| self.at_hand(len))
            else {
                if turns == Turns::ByHandle {
                    seen = Some((old.chunk.handle, len));
                }
                drop(stripe);
                self.free.lock().unwrap().extend(spare.take());
                spare = Some(self.by_force(len));
                continue;
            };
            let value = [&old.value(), tail].concat();
            let written = value.len().min(len);
            chunk.bytes[..written].copy_from_slice(&value[..written]);
            let old = stripe.replace(Item { chunk, len });
            self.free(old);
            break;
        }
        self.free.lock().unwrap().extend(spare);
    }
}

/// `append tt` to `aaa`, beside another client, in many orders.
fn race(turns: Turns, other: fn(&Model), allowed: &'static [&'static [u8]]) {
    let run = move || {
        let model = Arc::new(Model::default());
        model.set(b"aaa");
        let beside = thread::spawn({
            let model = model.clone();
            move || other(&model)
        });
        model.append(turns, b"tt");
        beside.join().unwrap();
        let left = model.stripe.lock().unwrap().as_ref().map(Item::value);
        let left = left.unwrap_or_default();
        assert!(
            allowed.contains(&left.as_slice()),
            "{}",
            left.escape_ascii()
        );
    };
    shuttle::check_random(run, ORDERS);
}

fn replace_by_shorter(model: &Model) {
    model.delete();
    model.set(b"b");
}

fn replace_by_longer(model: &Model) {
    model.delete();
    model.set(b"bbbb");
}

#[test]
fn in_any_order_a_verb_begins_anew() {
    race(Turns::Anew, replace_by_shorter, &[b"b", b"btt"]);
    race(Turns::Anew, replace_by_longer, &[b"bbbb", b"bbbbtt"]);
    race(Turns::Anew, |model| model.set(b"bb"), &[b"bb", b"bbtt"]);
    race(Turns::Anew, |model| model.overwrite(b'c'), &[b"caatt"]);
    race(Turns::Anew, Model::delete, &[b""]);
    race(
        Turns::Anew,
        |model| model.append(Turns::Anew, b"uu"),
        &[b"aaattuu", b"aaauutt"],
    );
}

#[test]
#[should_panic(expected = "bttSS")]
fn the_scheduler_finds_a_verb_that_goes_on_by_the_handle() {
    race(Turns::ByHandle, replace_by_shorter, &[b"b", b"btt"]);
}

#[test]
#[should_panic(expected = "bbbbt")]
fn the_scheduler_finds_a_lost_tail() {
    race(Turns::ByHandle, replace_by_longer, &[b"bbbb", b"bbbbtt"]);
}
