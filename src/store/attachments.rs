//! The assets that lines have uploaded to Meta: a row a line, kind and URL, with the id under which messages name it.
//!
//! The row of an upload in progress has a lease, so that two workers do not upload the same at once. Never here: how long
//! an id lives, and when an upload is tried again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
use crate::channel::MessageKind;
use crate::domain::{ErrorDetail, LineId};
use crate::text::words;

/// Rows that one listing returns at most.
pub const MAX_ATTACHMENTS: u32 = 1_000;

/// The asset at a URL, as messages of one kind on one line use it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttachmentKey {
    pub line: LineId,
    pub kind: MessageKind,
    pub url: Arc<str>,
}

impl AttachmentKey {
    /// Return the URL without query and fragment, which may hold a secret.
    pub fn shown_url(&self) -> &str {
        shown(&self.url)
    }

    /// Return the hash under which the asset is stored.
    pub fn url_hash(&self) -> String {
        url_hash(&self.url)
    }
}

/// Return the hash under which an asset at this URL is stored.
pub fn url_hash(url: &str) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, url.as_bytes()))
}

fn shown(url: &str) -> &str {
    &url[..url.find(['?', '#']).unwrap_or(url.len())]
}

/// The state of a stored asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentState {
    Uploading,
    /// Messages are sent by its id.
    Ready,
    /// Meta cannot fetch its URL.
    Unfetchable,
}
words!(AttachmentState, "attachment state", {
    Uploading => "uploading", Ready => "ready", Unfetchable => "unfetchable",
});

/// A wish to upload an asset, unless that is done already.
#[derive(Debug, Clone, Copy)]
pub struct UploadClaim<'a> {
    pub key: &'a AttachmentKey,
    /// The upload: no two have the same.
    pub holder: &'a str,
    pub lease: Duration,
    /// An id that Meta refuses: it is not returned, and is replaced.
    pub refused_id: Option<&'a str>,
}

/// The answer to an [`UploadClaim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadTurn {
    /// The holder is to upload the asset.
    Ours,
    /// Another upload of it is in progress.
    Elsewhere,
    /// The asset is uploaded; `left` is the rest of the id's life.
    Ready { attachment_id: String, left: Duration },
    /// Meta could not fetch the URL; `left` is the rest of the time for which that is remembered.
    Unfetchable { error: ErrorDetail, left: Duration },
}

/// The end of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadEnd {
    Ready {
        attachment_id: String,
        valid_for: Duration,
    },
    Unfetchable {
        error: ErrorDetail,
        remembered_for: Duration,
    },
    /// Nothing is known about the asset; the next upload may begin at once.
    Dropped,
}

impl UploadEnd {
    /// Return the state, the length of its life, the id and the error that both databases bind; `None` where the row is
    /// deleted.
    pub(super) fn values(&self) -> Option<(AttachmentState, Duration, Option<&str>, Option<&ErrorDetail>)> {
        match self {
            UploadEnd::Ready { attachment_id, valid_for } => {
                Some((AttachmentState::Ready, *valid_for, Some(attachment_id), None))
            }
            UploadEnd::Unfetchable { error, remembered_for } => {
                Some((AttachmentState::Unfetchable, *remembered_for, None, Some(error)))
            }
            UploadEnd::Dropped => None,
        }
    }
}

/// The assets that a command is about.
#[derive(Debug, Clone, Default)]
pub struct AttachmentFilter {
    pub line: Option<LineId>,
    /// A whole URL, or one as listed.
    pub url: Option<String>,
}

/// A stored asset as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AttachmentRow {
    pub v8l_id: LineId,
    pub kind: MessageKind,
    /// Without query and fragment.
    pub url: String,
    pub state: AttachmentState,
    pub attachment_id: Option<String>,
    #[serde(serialize_with = "crate::text::time")]
    pub changed_at: OffsetDateTime,
    /// The end of the id's life, of the time for which the failure is remembered, or of the upload's lease.
    #[serde(serialize_with = "crate::text::time")]
    pub until: OffsetDateTime,
    pub error_code: Option<i32>,
    pub error_subcode: Option<i32>,
    pub error_message: Option<String>,
}

/// The statements about uploaded assets.
#[async_trait]
pub trait AttachmentStore: Send + Sync {
    /// Return what is known of the asset, or give its upload to the holder. A row whose time has passed counts as none.
    async fn begin_upload(&self, claim: &UploadClaim<'_>) -> Result<UploadTurn, StoreError>;

    /// Renew the lease of an upload; return whether the holder still has it.
    async fn renew_upload(
        &self,
        key: &AttachmentKey,
        holder: &str,
        lease: Duration,
    ) -> Result<bool, StoreError>;

    /// Store the end of the holder's upload; return false if another one has it, or the asset was forgotten meanwhile.
    async fn end_upload(
        &self,
        key: &AttachmentKey,
        holder: &str,
        end: &UploadEnd,
    ) -> Result<bool, StoreError>;

    /// Return the stored assets whose time has not passed, the last changed first, at most [`MAX_ATTACHMENTS`].
    async fn attachments(&self, filter: &AttachmentFilter) -> Result<Vec<AttachmentRow>, StoreError>;

    /// Forget assets; return how many. An upload in progress goes on, and is done again.
    async fn forget_attachments(&self, filter: &AttachmentFilter) -> Result<u64, StoreError>;

    /// Delete the rows whose time has passed; return how many.
    async fn drop_ended_attachments(&self) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::query("https://example.com/a.png?sig=secret", "https://example.com/a.png")]
    #[case::fragment("https://example.com/a.png#x?y", "https://example.com/a.png")]
    #[case::neither("https://example.com/a.png", "https://example.com/a.png")]
    fn shown_url_has_no_query(#[case] url: &str, #[case] expected: &str) {
        let key = AttachmentKey { line: LineId(1), kind: MessageKind::Image, url: url.into() };
        assert_eq!(key.shown_url(), expected);
    }

    #[test]
    fn hash_is_of_the_whole_url() {
        assert_ne!(url_hash("https://example.com/a?1"), url_hash("https://example.com/a?2"));
        assert_eq!(url_hash("https://example.com/a").len(), 64);
    }
}
