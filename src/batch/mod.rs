//! Files of messages, as the server reads them and `campaign send` cuts them: where the records of a CSV end,
//! separators, repeated recipients, and parts of whole lines.
//!
//! Both sides split records by the same code; otherwise a part could end inside a quoted field.

mod addressed;
mod csv;
mod parts;
mod recipients;
mod records;
mod separator;
mod utf8;

pub use addressed::Addressed;
pub use csv::{CsvRow, CsvRows};
pub use parts::{Part, Parts};
pub use recipients::{MAX_RECIPIENTS, Recipient, Recipients};
pub use records::{Format, Named};
pub use separator::{SEPARATORS_IN_WORDS, separator_line, separator_named, separator_of_header};
