//! The memory of rows in hand, of all lines of a process together: one bound, `dispatch.memory`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::ReadyRow;

/// Bytes of a row for maps, keys and the allocator.
const OVERHEAD: usize = 400;

/// The bytes that rows in hand take, and their bound. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct RowMemory {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl RowMemory {
    pub fn of(limit: u64) -> RowMemory {
        RowMemory { used: Arc::default(), limit: usize::try_from(limit).unwrap_or(usize::MAX) }
    }

    /// Whether lines that have rows in hand may read more.
    pub fn has_room(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.limit
    }

    pub fn take(&self, row: &ReadyRow) {
        self.used.fetch_add(size(row), Ordering::Relaxed);
    }

    pub fn give_back(&self, row: &ReadyRow) {
        self.used.fetch_sub(size(row), Ordering::Relaxed);
    }
}

fn size(row: &ReadyRow) -> usize {
    let texts = [Some(&row.dest), Some(&row.mdata), row.cp_id.as_ref(), row.waiter.as_ref()];
    texts.into_iter().flatten().map(String::len).sum::<usize>() + size_of::<ReadyRow>() + OVERHEAD
}
