//! The words of the domain: what a message is, what can become of it, the job that announces it, and where
//! the rows of a batch end.
//!
//! Plain data, imported by every other module; this one imports nothing of ours and does no I/O.

mod class;
mod csv;
mod envelope;
mod health;
mod id;
mod job;
mod outcome;
mod redact;
mod status;
mod submission;
mod timestamp;
mod waiter;

pub use class::{Class, Lane, Medium, MessageKind};
pub use csv::{CsvRow, CsvRows};
pub use envelope::Envelope;
pub use health::{BreakerState, Serving};
pub use id::{AccountId, LineId, MessageId, PARTITIONS, Partition, WorkId};
pub use job::{JOB_VERSION, Job, JobMessage, JobWork, MAX_JOB_BYTES, MAX_JOB_WORK, Reply};
pub use outcome::{ErrorDetail, Outcome};
pub use redact::{MAX_ERROR_CHARS, printable_id, redact};
pub use status::{CampaignState, ErrorKind, Status};
pub use submission::{MAX_BATCH_ID_CHARS, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS, Submission};
pub use timestamp::{time, time_or_null, timestamp};
pub use waiter::{ReplyTo, Waiter};

/// A stored word that this version does not know, such as a status written by a newer one.
#[derive(Debug, thiserror::Error)]
#[error("unknown {what}: {value:?}")]
pub struct UnknownWord {
    pub what: &'static str,
    pub value: String,
}

/// Gives an enum its words: how each value is written in SQL, JSON and on the command line, and described in OpenAPI.
macro_rules! words {
    ($type:ident, $what:literal, { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The word that stands for this value in SQL, JSON and commands.
            pub const fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::message::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok($type::$variant),)+
                    _ => Err($crate::message::UnknownWord { what: $what, value: word.to_owned() }),
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .enum_values(Some([$($word),+]))
                    .into()
            }
        }

        impl utoipa::ToSchema for $type {}
    };
}
use words;
