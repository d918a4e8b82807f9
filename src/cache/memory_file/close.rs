//! What is written at the end: the records, the sums, the mark that all is clean.

use std::io;
use std::sync::atomic::Ordering::{Relaxed, Release};

use slab_alloc::{ChunkHandle, PageId};

use super::head::records_sum;
use super::layout::{CLASS_RECORDS, CLASS_WORDS, STRIPE_RECORDS, State, WRITE_MARKS, word};
use super::{MemoryFile, SUMMED_BYTES_MAX, in_parts, table_sum};
use crate::cache::segments::Segment;
use crate::cache::store::Cache;
use crate::clock::Moment;

impl MemoryFile {
    /// Writes the records of `cache`, which lies here and which nobody uses any more, and the mark that all is clean (Mf1).
    /// With sums, if nobody keeps the file meanwhile (Mf4).
    pub fn close(&self, cache: &Cache, moment: &Moment, with_sums: bool) -> io::Result<()> {
        self.note_time(moment, &cache.stores);
        self.note_flush(cache.flush.words());
        if self.image.is_patched() {
            // The file lacks a part of the table. The next process makes another one.
            return Ok(());
        }
        for (n, seed) in cache.seeds.into_iter().enumerate() {
            self.set(word::SEEDS + n, seed);
        }
        self.set(word::HASH_PROBE, cache.table.hash_probe());
        let table = cache.table.record();
        self.set(word::STRIPE_BITS, u64::from(table.stripes.len().ilog2()));
        let overflow = table.overflow;
        let list = u64::from(overflow.used_mark) << 32 | u64::from(overflow.head);
        self.set(word::OVERFLOW_LIST, list);
        self.set(word::OVERFLOW_IN_USE, u64::from(overflow.in_use));
        for (at, &(items, shape)) in table.stripes.iter().enumerate() {
            self.set(
                STRIPE_RECORDS + at,
                u64::from(shape) << 32 | u64::from(items),
            );
        }
        self.write_classes(cache);
        self.set(word::POLICY, cache.tuning.policy() as u64);
        self.set(word::STATES_SUM, cache.items.slabs().states_sum());
        self.write_sums(cache, with_sums);
        self.drop_learned();
        // Without it the policies learn anew.
        let learned = self.write_learned(cache).unwrap_or(0);
        self.set(word::POLICY_BYTES, learned);
        let words: Vec<u64> = (0..WRITE_MARKS)
            .map(|at| self.words[at].load(Relaxed))
            .collect();
        self.set(word::RECORDS_SUM, records_sum(&words));
        self.image.file().sync_data()?;
        self.words[word::STATE].store(State::Clean as u64, Release);
        self.image.file().sync_data()
    }

    /// Writes the sums of the pages and of the table, unless there is too much of it.
    fn write_sums(&self, cache: &Cache, wanted: bool) {
        let slabs = cache.items.slabs();
        let summed = wanted && slabs.pages_total() * slabs.page_bytes() <= SUMMED_BYTES_MAX;
        self.set(word::SUMMED, u64::from(summed));
        if summed {
            let pages: Vec<PageId> = slabs.page_ids().collect();
            in_parts(pages.len(), |nth| {
                self.sums[pages[nth].get() as usize]
                    .store(cache.items.page_sum(pages[nth]), Relaxed);
            });
            self.set(word::TABLE_SUM, table_sum(&cache.table));
        }
    }

    fn write_classes(&self, cache: &Cache) {
        let slabs = cache.items.slabs();
        for class in slabs.classes() {
            let at = CLASS_RECORDS + class.index() * CLASS_WORDS;
            let lru = cache.lru(class);
            let open = u64::from(slabs.is_open(class));
            self.set(at, open << 32 | slabs.chunk_bytes(class) as u64);
            for segment in Segment::ALL {
                let list = lru.segments.list(segment);
                let raw =
                    |handle: Option<ChunkHandle>| u64::from(handle.map_or(0, ChunkHandle::to_raw));
                let at = at + 1 + 2 * segment as usize;
                self.set(at, raw(list.tail) << 32 | raw(list.head));
                self.set(at + 1, list.count as u64);
            }
            self.set(at + 9, lru.requested_bytes);
        }
    }
}
