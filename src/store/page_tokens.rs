//! Page tokens as stored, to be sealed in place; and the pauses of lines whose token cannot be opened.
//!
//! Never here: keys, sealing and opening.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use super::StoreError;
use crate::domain::LineId;

/// The beginning of the reason of a pause of a line whose page token cannot be opened. The worker begins such
/// a pause, and ends it as soon as the token opens or is replaced.
pub const UNOPENED_PAUSE: &str = "page token cannot be opened";

/// The length of such a pause, beyond any that ends by itself.
pub const UNOPENED_FOR: Duration = Duration::from_secs(36_600 * 86_400);

/// A page token that is not blank, exactly as stored.
#[derive(Debug, Clone)]
pub struct StoredPageToken {
    pub line: LineId,
    pub text: SecretString,
}

/// The statements about stored page tokens.
#[async_trait]
pub trait PageTokenStore: Send + Sync {
    /// Return at most `limit` page tokens of the lines above `after`, by line.
    async fn page_tokens(&self, after: LineId, limit: u32) -> Result<Vec<StoredPageToken>, StoreError>;

    /// Replace the text of a page token that is still `old`, and nothing else: a pause goes on. Return whether
    /// it was.
    async fn swap_page_token(
        &self,
        line: LineId,
        old: &SecretString,
        new: &SecretString,
    ) -> Result<bool, StoreError>;

    /// Return the lines with a pause whose reason begins so.
    async fn lines_paused_for(&self, reason: &str) -> Result<Vec<LineId>, StoreError>;

    /// End the line's pause if it still has this reason; return whether it had.
    async fn end_pause(&self, line: LineId, reason: &str) -> Result<bool, StoreError>;
}
