//! Identifiers, each a type of its own, so that an account's id is never used as a line's.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

id!(
    /// `cdls_id`: a row of the log. Grows with time of submission; assigned by the database.
    RowId
);
id!(
    /// `work_id`: a row of the queue's `work`, messages of one commit that are served in turn together.
    /// Assigned by the database.
    WorkId
);
id!(
    /// `cdcs_id`: the customer who owns lines, tokens and log rows.
    AccountId
);
id!(
    /// `v8l_id`: one Facebook Page or Instagram business account that sends.
    LineId
);

/// The number of partitions that the lines are dealt into. Fixed for ever: it is part of the schema
/// (`partition_no` is `v8l_id % 64`) and of the work queues' names.
pub const PARTITIONS: i16 = 64;

/// A share of the lines, `v8l_id % 64`. One worker process owns it at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub i16);

impl Partition {
    /// Return every partition, 0 to 63.
    pub fn all() -> impl Iterator<Item = Partition> {
        (0..PARTITIONS).map(Partition)
    }
}

impl LineId {
    /// Return the partition of this line.
    pub fn partition(self) -> Partition {
        Partition((self.0 % i64::from(PARTITIONS)) as i16)
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}", self.0)
    }
}
