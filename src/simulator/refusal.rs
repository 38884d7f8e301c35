//! The refusals of Graph, as the simulator words them: HTTP status, `type`, code, subcode and text.
//!
//! Never here: the choice of a refusal.

/// An error of Graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlayedError {
    pub http_status: u16,
    /// `type`.
    pub kind: &'static str,
    pub code: u32,
    pub subcode: Option<u32>,
    pub message: &'static str,
}

pub(super) const OAUTH: &str = "OAuthException";

pub(super) const OUTSIDE_WINDOW: &str = "(#10) This message is sent outside of allowed window. Learn more about the new policy here: https://developers.facebook.com/docs/messenger-platform/policy-overview";
pub(super) const UNAVAILABLE: &str = "(#551) This person isn't available right now.";
pub(super) const TRY_LATER: &str = "(#1200) Temporary send message failure. Please try again later.";
pub(super) const UNKNOWN_ERROR: &str = "An unknown error occurred";
pub(super) const UNEXPECTED_ERROR: &str =
    "An unexpected error has occurred. Please retry your request later.";

/// Return Graph's own words for a code and subcode, where they are known.
pub(super) fn message_of(code: u32, subcode: Option<u32>) -> &'static str {
    match (code, subcode) {
        (1, _) => UNKNOWN_ERROR,
        (2, _) => UNEXPECTED_ERROR,
        (10, Some(2018278 | 2018065 | 2534022)) => OUTSIDE_WINDOW,
        (10, _) => "(#10) Application does not have permission for this action",
        (100, _) => "(#100) Invalid parameter",
        (190, _) => INVALIDATED,
        (551, _) | (200, Some(1545041)) => UNAVAILABLE,
        (613, _) => RATE_LIMITED,
        (1200, _) => TRY_LATER,
        (80001 | 80002 | 80006, _) => {
            "There have been too many calls to this account. Wait a bit and try again. For more info, please refer to https://developers.facebook.com/docs/graph-api/overview/rate-limiting."
        }
        _ => "The simulator was asked for this error",
    }
}

pub(super) const INVALIDATED: &str = "Error validating access token: The session has been invalidated because the user changed their password or Facebook has changed the session for security reasons.";
pub(super) const RATE_LIMITED: &str = "(#613) Calls to this api have exceeded the rate limit.";

/// The token's own limit is reached.
pub(super) const OVER_LIMIT: PlayedError =
    PlayedError { http_status: 400, kind: OAUTH, code: 613, subcode: None, message: RATE_LIMITED };

/// No `Authorization: Bearer`.
pub(super) const NO_TOKEN: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 2500,
    subcode: None,
    message: "An active access token must be used to query information about the current user.",
};

/// The token's time is over.
pub(super) const EXPIRED_TOKEN: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 190,
    subcode: Some(463),
    message: "Error validating access token: Session has expired. The current time is after its end.",
};

/// The token is no longer good: its session was ended.
pub(super) const ENDED_SESSION: PlayedError =
    PlayedError { http_status: 400, kind: OAUTH, code: 190, subcode: Some(460), message: INVALIDATED };

/// The token is of a kind that this call does not take.
pub(super) const OTHER_TOKEN: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 190,
    subcode: None,
    message: "Invalid OAuth access token - Cannot parse access token",
};

/// The object of the path is not the token's, or takes no such call.
pub(super) const UNKNOWN_OBJECT: PlayedError = PlayedError {
    http_status: 400,
    kind: "GraphMethodException",
    code: 100,
    subcode: Some(33),
    message: "Unsupported request. Object does not exist, cannot be loaded due to missing permissions, or does not support this operation",
};

/// The app's budget is spent.
pub(super) const APP_BUDGET_SPENT: PlayedError = PlayedError {
    http_status: 403,
    kind: OAUTH,
    code: 4,
    subcode: None,
    message: "(#4) Application request limit reached",
};

/// Return the refusal of a line whose budget is spent.
pub(super) fn line_budget_spent(code: u32) -> PlayedError {
    PlayedError { http_status: 400, kind: OAUTH, code, subcode: None, message: message_of(code, None) }
}

/// The recipient's window is closed, Messenger.
pub(super) const WINDOW_CLOSED: PlayedError =
    PlayedError { http_status: 400, kind: OAUTH, code: 10, subcode: Some(2018278), message: OUTSIDE_WINDOW };

/// The recipient's window is closed, Instagram.
pub(super) const INSTAGRAM_WINDOW_CLOSED: PlayedError = PlayedError {
    http_status: 403,
    kind: "IGApiException",
    code: 10,
    subcode: Some(2534022),
    message: "This message is sent outside of allowed window.",
};

/// The attachment id is not known, not the account's, or has ended.
pub(super) const UNKNOWN_ATTACHMENT: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 100,
    subcode: Some(2018074),
    message: "(#100) Invalid attachment ID or this attachment is not owned by you",
};

/// The asset could not be fetched.
pub(super) const UNFETCHABLE: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 100,
    subcode: Some(2018008),
    message: "(#100) Failed to fetch the file from the url",
};

/// The video took too long to fetch, or is broken.
pub(super) const SLOW_VIDEO: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 100,
    subcode: Some(2018294),
    message: "(#100) Video upload timed out or video corrupted",
};

/// The asset could not be fetched, told by the text alone.
pub(super) const FETCH_TEXT: PlayedError = wrong_parameter("(#100) Failed to fetch the file from the url");

/// The app demands `appsecret_proof`, and there is none or a wrong one.
pub(super) const WRONG_PROOF: PlayedError = PlayedError {
    http_status: 400,
    kind: "GraphMethodException",
    code: 100,
    subcode: None,
    message: "Invalid appsecret_proof provided in the API argument",
};

/// A request for a path that the simulator does not play.
pub(super) const UNKNOWN_PATH: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 2500,
    subcode: None,
    message: "Unknown path components: docs/simulator.md lists the calls that the simulator knows",
};

/// Return the error for a body that Graph does not take.
pub(super) const fn wrong_parameter(message: &'static str) -> PlayedError {
    PlayedError { http_status: 400, kind: OAUTH, code: 100, subcode: None, message }
}
