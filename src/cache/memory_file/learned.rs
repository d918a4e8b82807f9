//! What the policies have learned, behind the arena: written at the end, taken up step by step by the next process.

use std::io;
use std::os::unix::fs::FileExt;

use slab_alloc::ClassId;

use super::layout::Sum;
use super::{MemoryFile, Unread};
use crate::cache::eviction::Policy;
use crate::cache::store::Cache;

/// Bytes of what policies have learned that are read at a time.
const LEARNED_AT_A_TIME: usize = 4 << 20;
impl MemoryFile {
    /// Forgets what was left behind the arena.
    pub(super) fn drop_learned(&self) {
        let _ = self.image.file().set_len(self.geometry.len as u64);
    }

    /// Writes what the policies have learned behind the arena; gives how many bytes that is.
    ///
    /// ```text
    ///  | class, words of turnover, bytes learned | turnover | learned, filled up to words | sum |   of each class
    /// ```
    pub(super) fn write_learned(&self, cache: &Cache) -> io::Result<u64> {
        let begin = self.geometry.len as u64;
        let mut at = begin;
        for class in cache.items.slabs().classes() {
            let (policy, mut learned, turnover) = cache.lru(class).learned();
            if learned.is_empty() && turnover.len() <= 1 {
                continue;
            }
            let head = [
                u64::from(class.get()) << 8 | policy as u64,
                turnover.len() as u64,
                learned.len() as u64,
            ];
            learned.resize(learned.len().next_multiple_of(8), 0);
            let words = head.into_iter().chain(turnover);
            let mut bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
            bytes.append(&mut learned);
            let sum = sum_of_bytes(&bytes);
            bytes.extend(sum.to_ne_bytes());
            self.image.file().write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(at - begin)
    }

    /// Has what the policies have learned taken up step by step, if they are the same: so many bytes of it.
    pub fn has_learned(&self, bytes: u64) {
        let at = self.geometry.len as u64;
        let end = at.saturating_add(bytes);
        *self.unread.lock() = Some(Unread { at, end });
    }

    /// A part of that, in the background.
    pub fn take_up_learned(&self, cache: &Cache) {
        let mut unread = self.unread.lock();
        let Some(left) = &mut *unread else { return };
        let mut read = 0;
        while read < LEARNED_AT_A_TIME {
            match self.take_up_class(cache, left) {
                Ok(Some(bytes)) => read += bytes,
                Ok(None) | Err(_) => {
                    *unread = None;
                    self.drop_learned();
                    return;
                }
            }
        }
    }

    fn take_up_class(&self, cache: &Cache, left: &mut Unread) -> io::Result<Option<usize>> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = [0; 24];
        if left.end - left.at < head.len() as u64 {
            return Ok(None);
        }
        self.image.file().read_exact_at(&mut head, left.at)?;
        let word = |bytes: &[u8], n: usize| {
            u64::from_ne_bytes(*bytes[n * 8..].first_chunk().expect("eight"))
        };
        let (turnover, learned) = (word(&head, 1), word(&head, 2));
        let rest = turnover
            .checked_mul(8)
            .zip(learned.checked_next_multiple_of(8))
            .and_then(|(turnover, learned)| turnover.checked_add(learned)?.checked_add(8))
            .filter(|&rest| rest <= left.end - left.at - head.len() as u64)
            .ok_or_else(damaged)?;
        let mut bytes = head.to_vec();
        bytes.resize(head.len() + rest as usize, 0);
        self.image.file().read_exact_at(&mut bytes, left.at)?;
        left.at += bytes.len() as u64;
        let (bytes, sum) = bytes.split_at(bytes.len() - 8);
        let class = ClassId::new((word(bytes, 0) >> 8) as u8);
        let policy = Policy::ALL.get(bytes[0] as usize);
        let class = class.filter(|&class| cache.has_class(class.get()));
        let (Some(class), Some(&policy), true) =
            (class, policy, sum_of_bytes(bytes) == word(sum, 0))
        else {
            return Err(damaged());
        };
        let (turnover_bytes, learned_bytes) = bytes[24..].split_at(turnover as usize * 8);
        let turnover: Vec<u64> = turnover_bytes
            .chunks_exact(8)
            .map(|bytes| word(bytes, 0))
            .collect();
        let mut lru = cache.lru(class);
        lru.take_up(policy, &learned_bytes[..learned as usize], &turnover);
        Ok(Some(bytes.len()))
    }
}

fn sum_of_bytes(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8]| u64::from_ne_bytes(*bytes.first_chunk().expect("eight"));
    Sum::of(bytes.chunks_exact(8).map(word)).0
}
