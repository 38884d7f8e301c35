//! The metrics of uploaded assets.

use metrics::{Counter, Gauge};

use super::names;
use super::series::of;

/// The end of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadResult {
    Uploaded,
    /// Meta cannot fetch the URL.
    Unfetchable,
    /// Given up for another reason; the messages are sent with the URL.
    GivenUp,
}

const UPLOAD_RESULTS: [(UploadResult, &str); 3] = [
    (UploadResult::Uploaded, "uploaded"),
    (UploadResult::Unfetchable, "unfetchable"),
    (UploadResult::GivenUp, "given_up"),
];

/// Uploads, and messages sent by the id of one.
pub struct AttachmentMetrics {
    ended: [(UploadResult, Counter); UPLOAD_RESULTS.len()],
    /// Upload calls, each try of an upload.
    pub calls: Counter,
    /// Calls by the id of an asset.
    pub reused: Counter,
    /// Ids that Meta refused.
    pub refused_ids: Counter,
    /// Messages in hand that wait for an asset.
    pub waiting: Gauge,
}

impl AttachmentMetrics {
    pub(super) fn new() -> AttachmentMetrics {
        AttachmentMetrics {
            ended: UPLOAD_RESULTS
                .map(|(result, word)| (result, metrics::counter!(names::UPLOADS_ENDED, "result" => word))),
            calls: metrics::counter!(names::UPLOAD_CALLS),
            reused: metrics::counter!(names::ATTACHMENTS_REUSED),
            refused_ids: metrics::counter!(names::ATTACHMENT_IDS_REFUSED),
            waiting: metrics::gauge!(names::ATTACHMENT_ROWS_WAITING),
        }
    }

    pub fn ended(&self, result: UploadResult) {
        if let Some(counter) = of(&self.ended, result) {
            counter.increment(1);
        }
    }
}
