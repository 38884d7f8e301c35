//! A batch as its request describes it, and the counts and the fault of its answer.

use std::net::IpAddr;

use secrecy::SecretString;

use super::super::parameters::Parameters;
use super::csv::CsvOptions;
use crate::batch::Format;
use crate::domain::AccountId;
use crate::edge::Turn;
use crate::text::Charset;

/// The options of a batch as a whole.
pub struct BatchRequest {
    /// Checked again while the batch is read: the token may be revoked meanwhile.
    pub token: SecretString,
    pub address: IpAddr,
    pub account: AccountId,
    pub format: Format,
    pub csv: CsvOptions,
    /// The encoding that the request's Content-Type names.
    pub charset: Charset,
    /// Refuse lines whose recipient stands in an earlier one.
    pub is_once_per_dest: bool,
    /// Values for parameters that an item leaves out.
    pub defaults: Parameters,
    pub batch_id: String,
    /// Whether the batch may have been sent before.
    pub is_named: bool,
    /// The account's turn, held to the batch's end.
    pub turn: Turn,
}

/// Counts of a batch so far.
#[derive(Debug, Default, Clone, Copy)]
pub struct BatchCounts {
    pub answered: u64,
    /// Items answered that an earlier sending had logged.
    pub logged_before: u64,
    /// Logged items whose recipient stands in an earlier one.
    pub duplicates: u64,
    /// Values that were not UTF-8, and whose encoding was guessed.
    pub not_utf8: u64,
}

/// The body broke off, or no more data arrived.
#[derive(Debug, thiserror::Error)]
#[error("the batch was cut")]
pub struct BodyCut;
