//! The reasons for refusing a request: the table of the contract ("HTTP: the two send endpoints"), word for
//! word.

use std::borrow::Cow;

use crate::channel::Class;
use crate::domain::TokenScope;
use crate::store::StoreError;

/// A refusal, before anything is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The address has guessed tokens, or has failed again and again.
    AddressBanned,
    TooManyAttempts,
    TooLarge,
    Malformed,
    NoToken,
    /// No token was found in JSON that came without its Content-Type and was read as a form.
    NoContentType,
    UnknownToken,
    /// The token may be right, and cannot be checked: its key is not in the settings.
    TokenKeyMissing,
    AccountInactive,
    /// The account has an allow-list, and the caller's address is not on it.
    AddressNotAllowed,
    /// The token lacks the scope of the call.
    NoScope(TokenScope),
    KeyReused,
    NoAppId,
    NoDest,
    NoMdata,
    InvalidMtype,
    InvalidMdata,
    TextTooLong,
    InvalidParameter(&'static str),
    /// The caller's own name for a parameter: [`super::Refused`] repeats it.
    UnknownParameter,
    LineNotFound(Class),
    NoPageToken,
    NoPageId,
    Duplicate,
    CampaignCancelled,
    /// No such row or campaign of this account.
    NotFound,
    /// Not logged, or not known to be; the caller repeats the request.
    Unavailable,
    /// Not logged: the account is over its quota of rows a second.
    OverRate,
    /// Not logged: the account is over its quota of waiting rows.
    OverBacklog,
    /// The account has as many lists, exports or batches under way as it may.
    Crowded,
}

impl Refusal {
    /// Return the HTTP status.
    pub fn http_status(self) -> u16 {
        match self {
            Refusal::TooLarge => 413,
            Refusal::AddressBanned
            | Refusal::TooManyAttempts
            | Refusal::NoToken
            | Refusal::NoContentType
            | Refusal::UnknownToken
            | Refusal::AccountInactive
            | Refusal::AddressNotAllowed
            | Refusal::NoScope(_) => 401,
            Refusal::NotFound => 404,
            Refusal::Unavailable
            | Refusal::TokenKeyMissing
            | Refusal::OverRate
            | Refusal::OverBacklog
            | Refusal::Crowded => 503,
            _ => 400,
        }
    }

    /// Whether the address is shut out, whatever the request.
    pub fn is_shut_out(self) -> bool {
        matches!(self, Refusal::AddressBanned | Refusal::TooManyAttempts)
    }

    /// Whether the account is over one of its quotas.
    pub fn is_over_quota(self) -> bool {
        matches!(self, Refusal::OverRate | Refusal::OverBacklog)
    }

    /// Return the seconds after which the same request may succeed; `None` where it has to be changed.
    pub fn retry_after(self) -> Option<u16> {
        match self {
            Refusal::OverBacklog => Some(5),
            _ if self.http_status() == 503 => Some(1),
            _ => None,
        }
    }

    /// Return `status_code`.
    pub fn code(self) -> i32 {
        match self {
            Refusal::AddressBanned => 199,
            Refusal::TooManyAttempts => 131,
            Refusal::TooLarge => 413,
            Refusal::Malformed => 400,
            Refusal::NoToken | Refusal::NoContentType | Refusal::NoScope(_) => 100,
            Refusal::UnknownToken => 102,
            Refusal::AccountInactive => 110,
            Refusal::AddressNotAllowed => 142,
            Refusal::NoAppId => 210,
            Refusal::NoDest => 220,
            Refusal::NoMdata => 225,
            Refusal::InvalidMtype => 226,
            Refusal::InvalidMdata => 227,
            Refusal::InvalidParameter(_) | Refusal::UnknownParameter => 229,
            Refusal::LineNotFound(_) => 230,
            Refusal::NoPageToken => 233,
            Refusal::NoPageId => 234,
            Refusal::TextTooLong => 238,
            Refusal::Duplicate => 244,
            Refusal::KeyReused => 246,
            Refusal::CampaignCancelled => 247,
            Refusal::NotFound => 404,
            Refusal::Unavailable
            | Refusal::TokenKeyMissing
            | Refusal::OverRate
            | Refusal::OverBacklog
            | Refusal::Crowded => 503,
        }
    }

    /// Return `status`.
    pub fn text(self) -> String {
        let text = match self {
            Refusal::AddressBanned => "IP blocked",
            Refusal::TooManyAttempts => "IP trials exceeded",
            Refusal::TooLarge => "Request too large",
            Refusal::Malformed => "Malformed request",
            Refusal::NoToken | Refusal::NoContentType | Refusal::NoScope(_) => "fail authentication",
            Refusal::UnknownToken => "SID not found",
            Refusal::AccountInactive => "account inactive",
            Refusal::AddressNotAllowed => "IP not allowed",
            Refusal::NoAppId => "No app_id",
            Refusal::NoDest => "No dest",
            Refusal::NoMdata => "No mdata",
            Refusal::InvalidMtype => "Invalid mtype",
            Refusal::InvalidMdata => "Invalid mdata",
            Refusal::InvalidParameter(name) => return format!("Invalid parameter: {name}"),
            Refusal::UnknownParameter => "Invalid parameter",
            Refusal::LineNotFound(class) => return format!("{} line not found", class.title),
            Refusal::NoPageToken => "No page access token",
            Refusal::NoPageId => "No page ID",
            Refusal::TextTooLong => "text too long",
            Refusal::Duplicate => "http duplicidade",
            Refusal::KeyReused => "Idempotency key reused",
            Refusal::CampaignCancelled => "Campaign cancelled",
            Refusal::NotFound => "Not found",
            Refusal::Unavailable
            | Refusal::TokenKeyMissing
            | Refusal::OverRate
            | Refusal::OverBacklog
            | Refusal::Crowded => "temporarily unavailable",
        };
        text.to_owned()
    }

    /// Return the `detail` of a refusal without a more particular reason: the fault, and the remedy.
    pub fn detail(self) -> Cow<'static, str> {
        let text = match self {
            Refusal::AddressBanned => {
                "The address is blocked after too many failed attempts: use a token that is in force, and ask the operator \
                 to lift the block"
            }
            Refusal::TooManyAttempts => {
                "Too many requests from this address have failed: use a token that is in force, and repeat the request in \
                 ten minutes"
            }
            Refusal::TooLarge => "The body is over 64 KiB: send a shorter one, or many messages as a batch",
            Refusal::Malformed => "The body cannot be read as its Content-Type says",
            Refusal::NoToken => {
                "The request has no token: send it as `tsid`, or in the header `Authorization: Bearer`"
            }
            Refusal::NoContentType => {
                "No token was found: the body looks like JSON and was read as a form; send it with the header \
                 `Content-Type: application/json`"
            }
            Refusal::UnknownToken => {
                "The token is unknown, malformed, expired or revoked: use one that is in force"
            }
            Refusal::TokenKeyMissing => {
                "The token cannot be checked now: repeat the request later, or ask the operator to look into the log"
            }
            Refusal::AccountInactive => "The account is disabled: ask the operator to enable it",
            Refusal::AddressNotAllowed => {
                "The account may not be used from this address: ask the operator to allow its network"
            }
            Refusal::NoScope(scope) => {
                return format!(
                    "The token has no scope `{scope}`, which this call needs: use one that has it, or ask the operator for it"
                )
                .into();
            }
            Refusal::KeyReused => {
                "The Idempotency-Key was used for other parameters: use a new key for a new message"
            }
            Refusal::NoAppId => {
                "`app_id` is missing, or not a positive integer: give the id of the line that sends"
            }
            Refusal::NoDest => "`dest` is missing or blank: give the recipient's PSID or IGSID",
            Refusal::NoMdata => "`mdata` is missing or blank: give the text, or the URL of the asset",
            Refusal::InvalidMtype => "This channel has no such `mtype`: docs/contract.md lists them",
            Refusal::InvalidMdata => {
                "`mdata` of a media message is not an absolute http(s) URL: escape blanks, and give it whole"
            }
            Refusal::TextTooLong => "The text is longer than this channel takes: send it in several messages",
            Refusal::InvalidParameter(name) => {
                return format!("`{name}` is out of its range: docs/contract.md has the values").into();
            }
            Refusal::UnknownParameter => "The call has no such parameter: leave it out",
            Refusal::LineNotFound(class) => {
                return format!(
                    "The account has no active {} line with this `app_id`: look for its id and its class",
                    class.title
                )
                .into();
            }
            Refusal::NoPageToken => {
                "The line has no page access token: the operator sets it with `line set-pat`"
            }
            Refusal::NoPageId => "The line has no Facebook Page id: the operator adds it to the line",
            Refusal::Duplicate => {
                "A message to this line and `dest` was accepted less than `httpdup` seconds ago: wait, or leave \
                 `httpdup` out"
            }
            Refusal::CampaignCancelled => "The campaign of this `cp_id` is cancelled: use another label",
            Refusal::NotFound => "The account has nothing under this id or label",
            Refusal::Unavailable => {
                "The database cannot be reached, or too many messages wait: repeat the request, a submission with \
                 the same Idempotency-Key"
            }
            Refusal::OverRate => {
                "The account is over its quota of messages a second (security.quota_rows_per_second): repeat the request \
                 a moment later, with the same Idempotency-Key"
            }
            Refusal::OverBacklog => {
                "More messages of the account wait than its quota allows (security.quota_backlog): repeat the request \
                 when some of them are sent, with the same Idempotency-Key"
            }
            Refusal::Crowded => {
                "The account has as many lists, exports or batches under way as it may: repeat the request when one of \
                 them has ended"
            }
        };
        text.into()
    }
}

/// Return the refusal of a request whose look-up the database did not answer.
pub fn unavailable(error: StoreError) -> Refusal {
    tracing::warn!(%error, "database query of a request failed: caller receives 503");
    Refusal::Unavailable
}
