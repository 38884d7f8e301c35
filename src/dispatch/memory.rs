//! The memory that rows in hand take, of all lines of a process together: one bound, `dispatch.memory`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::ReadyRow;

/// Maps, keys and the allocator, for each row.
const OVERHEAD: usize = 400;

/// The bytes that rows in hand take, and may take. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Memory {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Memory {
    pub fn of(limit: u64) -> Memory {
        Memory { used: Arc::default(), limit: usize::try_from(limit).unwrap_or(usize::MAX) }
    }

    /// Whether rows may be read by lines that have some in hand.
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
