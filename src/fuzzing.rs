//! Ways into functions of other modules for the targets in `fuzz/`, with the feature `fuzzing` alone. Never here: code.

pub use crate::api::parameters::{CampaignsRequest, PageRequest, campaigns_cursor, cursor};
pub use crate::broker::rabbitmq::jobs::{UnreadableJob, read_job};
pub use crate::broker::rabbitmq::replies::{UnreadableReply, read_reply};
pub use crate::broker::rabbitmq::submissions::read as read_submission;
pub use crate::ingest::batch::read::{BatchInput, Reader};
pub use crate::ingest::batch::{CsvOptions, IgnoredColumns};
pub use crate::ingest::body::{BodyType, submission_charset};
pub use crate::ingest::http::send::prefer_wait;
pub use crate::ingest::parameters::{LISTED, Parameters, request_hash};
pub use crate::ingest::pipeline::token;
pub use crate::ingest::rejected::rejected;
pub use crate::ingest::validate::{CheckedMessage, check, wait};
