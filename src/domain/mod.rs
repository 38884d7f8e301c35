//! The words of the domain: ids, statuses, lanes, the job that announces a message, and its outcome; scopes of tokens,
//! and addresses of callers.
//!
//! Plain data, imported by every module below. Never here: I/O.

mod address;
mod health;
mod id;
mod job;
mod lane;
mod metadata;
mod outcome;
mod scope;
mod status;
mod submission;
mod waiter;

pub use address::{CountedAddress, NoAddress, network};
pub use health::{BreakerState, Serving};
pub use id::{AccountId, LineId, PARTITIONS, Partition, RowId, WorkId};
pub use job::{JOB_VERSION, Job, JobMessage, JobWork, MAX_JOB_BYTES, MAX_JOB_WORK, Reply};
pub use lane::Lane;
pub use metadata::{Metadata, MetadataKey};
pub use outcome::{ErrorDetail, Outcome};
pub use scope::{TokenScope, TokenScopes};
pub use status::{CampaignState, ErrorKind, Status, WindowState};
pub use submission::{MAX_BATCH_ID_CHARS, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS, Submission};
pub use waiter::{ReplyTo, Waiter};
