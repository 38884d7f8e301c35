//! The two lanes of a line.

use crate::text::words;

/// `priority`: a line serves `high` first, and keeps a share for `bulk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    High,
    Bulk,
}
words!(Lane, "priority", { High => "high", Bulk => "bulk" });
