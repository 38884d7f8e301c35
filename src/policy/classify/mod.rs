//! Judges the result of a call to Graph: its meaning for the message, its line and the app.
//!
//! The pair (code, subcode) decides (`table`), then `type`; the HTTP status only where no code decides; the
//! text of an error never, except for two cases in `table`. An answer without Graph's envelope is not Graph's:
//! it ends no message for good, and pauses the line. Pure: this module sends nothing, pauses nothing, and
//! never panics on an answer of Graph or of a gateway.

mod answer;
mod asked;
mod body;
mod detail;
mod judge;
mod judgement;
mod listing;
mod overrides;
mod pause;
mod table;
#[cfg(test)]
mod tests;
mod upload;

pub use answer::{CallResult, GraphAnswer, Subject};
pub use asked::{Refusal, asked, number};
pub use judge::{classify, classify_with};
pub use judgement::{Judgement, PauseDemand, PauseTarget, Verdict};
pub use listing::{CodeRow, code_rows, codes_page, is_listed, remedy_of_pause};
pub use overrides::{CodeOverride, CodeOverrides, OverrideError};
pub use pause::CANNOT_SEND;
pub use table::known_codes;
pub use upload::{UploadJudgement, UploadVerdict, is_unknown_attachment, judge_upload};
