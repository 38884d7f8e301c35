//! Why a request is refused: the table of contract 2, word for word.

use crate::message::Class;

/// A refusal, before anything is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    TooLarge,
    Malformed,
    NoToken,
    UnknownToken,
    AccountInactive,
    KeyReused,
    NoAppId,
    NoDest,
    NoMdata,
    InvalidMtype,
    InvalidMdata,
    TextTooLong,
    InvalidParameter(&'static str),
    LineNotFound(Class),
    NoPageToken,
    NoPageId,
    Duplicate,
    CampaignCancelled,
    /// No such row or campaign of this account.
    NotFound,
    /// Not logged, or not known to be; to be repeated.
    Unavailable,
}

impl Refusal {
    /// HTTP status.
    pub fn http_status(self) -> u16 {
        match self {
            Refusal::TooLarge => 413,
            Refusal::NoToken | Refusal::UnknownToken | Refusal::AccountInactive => 401,
            Refusal::NotFound => 404,
            Refusal::Unavailable => 503,
            _ => 400,
        }
    }

    /// `status_code`.
    pub fn code(self) -> i32 {
        match self {
            Refusal::TooLarge => 413,
            Refusal::Malformed => 400,
            Refusal::NoToken => 100,
            Refusal::UnknownToken => 102,
            Refusal::AccountInactive => 110,
            Refusal::NoAppId => 210,
            Refusal::NoDest => 220,
            Refusal::NoMdata => 225,
            Refusal::InvalidMtype => 226,
            Refusal::InvalidMdata => 227,
            Refusal::InvalidParameter(_) => 229,
            Refusal::LineNotFound(_) => 230,
            Refusal::NoPageToken => 233,
            Refusal::NoPageId => 234,
            Refusal::TextTooLong => 238,
            Refusal::Duplicate => 244,
            Refusal::KeyReused => 246,
            Refusal::CampaignCancelled => 247,
            Refusal::NotFound => 404,
            Refusal::Unavailable => 503,
        }
    }

    /// `status`.
    pub fn text(self) -> String {
        let text = match self {
            Refusal::TooLarge => "Request too large",
            Refusal::Malformed => "Malformed request",
            Refusal::NoToken => "fail authentication",
            Refusal::UnknownToken => "SID not found",
            Refusal::AccountInactive => "account inactive",
            Refusal::NoAppId => "No app_id",
            Refusal::NoDest => "No dest",
            Refusal::NoMdata => "No mdata",
            Refusal::InvalidMtype => "Invalid mtype",
            Refusal::InvalidMdata => "Invalid mdata",
            Refusal::InvalidParameter(name) => return format!("Invalid parameter: {name}"),
            Refusal::LineNotFound(Class::Messenger) => "Messenger line not found",
            Refusal::LineNotFound(Class::Instagram) => "Instagram line not found",
            Refusal::NoPageToken => "No page access token",
            Refusal::NoPageId => "No page ID",
            Refusal::TextTooLong => "text too long",
            Refusal::Duplicate => "http duplicidade",
            Refusal::KeyReused => "Idempotency key reused",
            Refusal::CampaignCancelled => "Campaign cancelled",
            Refusal::NotFound => "Not found",
            Refusal::Unavailable => "temporarily unavailable",
        };
        text.to_owned()
    }
}
