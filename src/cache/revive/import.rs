//! Items of a file with another layout, stored anew in a file of their own; a walk through the older one finds them.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use slab_alloc::{ChunkHandle, PageId, Sizes, SlabAllocator, image};

use super::super::flush::FlushMark;
use super::super::item::{ItemSpec, Items};
use super::super::memory_file::layout::State;
use super::super::memory_file::{How, MemoryFile, Place};
use super::super::store::Cache;
use super::walk::Walk;
use super::{CAS_SINCE_TICK, Reviver, begin};

impl Reviver<'_> {
    /// Stores the items anew in a file of the layout that is wanted, which takes the name of the old one.
    pub(super) fn import(&mut self, file: File, reason: String) -> io::Result<Cache> {
        let place = self.place;
        log::warn!("{place}: {reason}: its items are stored anew");
        let old_file = MemoryFile::map(self.place, file, self.head.geometry)?;
        let unfinished = old_file.write_marks();
        old_file.open()?;
        let sizes = Sizes::Exact(self.head.sizes.clone());
        let old = SlabAllocator::salvage(old_file.image(), &self.head.geometry.slabs, &sizes, 0)?;
        let old = Items::new(old, self.config.use_cas, usize::MAX);
        self.drop_changed_pages(&old_file, &old);
        let new_path = match place {
            Place::Named(path) => {
                let mut new_path = path.as_os_str().to_owned();
                new_path.push(".new");
                Some((PathBuf::from(new_path), path))
            }
            Place::Unnamed => None,
        };
        let new_file = match &new_path {
            Some((new_path, _)) => image::open(new_path)?,
            None => image::unnamed()?,
        };
        new_file.set_len(0)?;
        let cache = begin(self.config, place, new_file)?;
        let cas = self.head.cas();
        let cas = match self.head.state() {
            State::Clean => cas,
            _ => cas + CAS_SINCE_TICK,
        };
        cache.pass_cas(cas);
        let cache = cache.with_flush(FlushMark::resume(self.head.flush()));
        self.restart.how = How::Imported;
        self.restart.reason = reason;
        self.step_done("map");
        self.look_through(&cache, Some(&old), unfinished);
        if let Some(memory_file) = &cache.memory_file {
            memory_file.open()?;
        }
        if let Some((new_path, path)) = new_path {
            std::fs::rename(new_path, path)?;
        }
        Ok(cache)
    }
}

impl Walk<'_> {
    /// A copy of an item of the older file.
    pub(super) fn store_anew(&self, chunk: ChunkHandle) -> Option<ChunkHandle> {
        let (items, header) = (&self.cache.items, self.source.header(chunk));
        let spec = ItemSpec {
            key: self.source.key(chunk),
            key_binary: self.source.is_key_binary(chunk),
            client_flags: self.source.client_flags(chunk, header),
            expires_at: header.expires_at(),
            value_len: header.value_len() as u32,
        };
        let slabs = items.slabs();
        let mut new = items.create(&spec, |class| slabs.alloc(class)).ok()?;
        for piece in self.source.value_pieces(chunk) {
            new.write(piece);
        }
        let new = new.into_handle();
        items.follow_old(new, self.source, chunk);
        Some(new)
    }

    /// Counts continuations of a page; gives the page back when it has been looked at and none is left.
    pub(super) fn count_left(&self, page: PageId, change: i32) {
        let left = &self.left[page.get() as usize - 1];
        if left.fetch_add(change, Relaxed) + change == 0 {
            self.source.give_page_back(page);
        }
    }
}
