//! The common parts of the OpenAPI document: how to authenticate, and how every call refuses.
//!
//! Codes and texts of refusals come from [`Refusal`] itself. Nothing here takes part in answering;
//! `tests/it/openapi` checks that every example is a real answer.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, ContentBuilder, HeaderBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, Required, Response, ResponseBuilder, Schema, SecurityRequirement,
};
use utoipa::{IntoParams, PartialSchema};

use super::{Envelope, Refusal, Refused};

pub const JSON: &str = "application/json";

/// The meaning of `tsid` and of its alias.
pub const TSID: &str = "Account token; `sid` and `Authorization: Bearer` also work; `tsid` wins over `sid`, `sid` over the header";
pub const SID: &str = "Alias of `tsid`";

const UNAUTHENTICATED: &str = "Unauthenticated";
const UNAVAILABLE: &str = "Unavailable";

/// Return answers by HTTP status, with the answers that any call may give.
pub fn answers<const N: usize>(own: [(&str, RefOr<Response>); N]) -> BTreeMap<String, RefOr<Response>> {
    let common = [("401", UNAUTHENTICATED), ("503", UNAVAILABLE)];
    let common = common.map(|(status, name)| (status, Ref::from_response_name(name).into()));
    own.into_iter().chain(common).map(|(status, answer)| (status.to_owned(), answer)).collect()
}

/// Return the part that all calls share: how to authenticate, and how every call refuses.
pub fn common() -> OpenApi {
    let about = "Send Facebook Messenger and Instagram Direct messages through a logged queue. \
                 docs/contract.md explains each parameter and code.";
    let alone = |name: &str| SecurityRequirement::new::<_, [&str; 0], _>(name, []);
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("meta-dispatch").version("2").description(Some(about)).build())
        .security(Some(["bearer", "tsid", "sid"].map(alone)))
        .components(Some(components()))
        .build()
}

fn components() -> Components {
    let in_query = |name: &str| SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new(name)));
    let unauthenticated = [Refusal::NoToken, Refusal::UnknownToken, Refusal::AccountInactive];
    let unauthenticated = enveloped(
        "Not authenticated (100, also where the token has no scope for the call; 102, 110), or not from this address (131, \
         142, 199)",
        refusals(unauthenticated, 401),
    );
    let retry_after = HeaderBuilder::new()
        .description(Some("Seconds until the next try"))
        .schema(Some(i32::schema()))
        .build();
    let mut unavailable = enveloped(
        "Database unreachable, or backlog full; repeat the request (a submission with its `Idempotency-Key`)",
        refusals([Refusal::Unavailable], 503),
    );
    unavailable.headers.insert("Retry-After".to_owned(), retry_after.into());
    ComponentsBuilder::new()
        .schema_from::<Envelope<'_>>()
        .response(UNAUTHENTICATED, unauthenticated)
        .response(UNAVAILABLE, unavailable)
        .security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .security_scheme("tsid", in_query("tsid"))
        .security_scheme("sid", in_query("sid"))
        .build()
}

/// Return a query parameter, which may be left out.
pub fn in_query(name: &str, about: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    optional(ParameterIn::Query, name, about).schema(Some(schema)).build()
}

pub fn optional(place: ParameterIn, name: &str, about: &str) -> ParameterBuilder {
    ParameterBuilder::new().name(name).parameter_in(place).required(Required::False).description(Some(about))
}

/// The token in the query.
pub struct Token;

impl IntoParams for Token {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        [("tsid", TSID), ("sid", SID)].map(|(name, about)| in_query(name, about, String::schema())).into()
    }
}

/// Return an answer in the envelope.
pub fn enveloped(about: &str, examples: impl IntoIterator<Item = (String, Example)>) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Envelope")))
        .examples_from_iter(examples)
        .build();
    ResponseBuilder::new().description(about).content(JSON, content).build()
}

/// Return examples of refusals that are answered with an HTTP status, named by their codes.
pub fn refusals<R: Into<Refused>>(
    refusals: impl IntoIterator<Item = R>,
    http_status: u16,
) -> Vec<(String, Example)> {
    let answered = refusals
        .into_iter()
        .map(Into::<Refused>::into)
        .filter(|refused| refused.http_status() == http_status);
    let named = |refused: Refused| {
        let status = refused.status();
        let envelope = Envelope::refused(&refused, &status);
        (refused.code().to_string(), example(cause(refused.refusal), json!(envelope)))
    };
    answered.map(named).collect()
}

pub fn example(about: &str, value: Value) -> Example {
    ExampleBuilder::new().summary(about).value(Some(value)).build()
}

/// Return the cause of a refusal in words. A new refusal also belongs into a list of answers.
fn cause(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::AddressBanned => "The address is blocked after too many failed attempts",
        Refusal::TooManyAttempts => "Too many requests from this address have failed",
        Refusal::TooLarge => "The body is over 64 KiB",
        Refusal::Malformed => "The body does not match its Content-Type",
        Refusal::NoToken => "No token",
        Refusal::NoContentType => "No token, as JSON without its Content-Type was read as a form",
        Refusal::UnknownToken => "Unknown, malformed, expired or revoked token",
        Refusal::TokenKeyMissing => "The token cannot be checked, as its key is not in the settings",
        Refusal::AccountInactive => "The account is disabled",
        Refusal::AddressNotAllowed => "The account may not be used from this address",
        Refusal::NoScope(_) => "The token has no scope for this call",
        Refusal::KeyReused => "The Idempotency-Key was used with other parameters",
        Refusal::NoAppId => "app_id is missing, or not a positive integer",
        Refusal::NoDest => "dest is missing or blank",
        Refusal::NoMdata => "mdata is missing or blank",
        Refusal::InvalidMtype => "The class does not support this mtype",
        Refusal::InvalidMdata => "mdata of a media message is not an absolute http(s) URL",
        Refusal::TextTooLong => {
            "The text has over 2,000 characters (Messenger) or 1,000 bytes of UTF-8 (Instagram)"
        }
        Refusal::InvalidParameter(_) => "The named parameter is out of its range",
        Refusal::UnknownParameter => "The call has no parameter of this name",
        Refusal::LineNotFound(_) => "The line is missing, inactive, of the other class, or another account's",
        Refusal::NoPageToken => "The line has no page access token",
        Refusal::NoPageId => "The line has no page id",
        Refusal::Duplicate => "httpdup: a message to the same line and dest was accepted within the window",
        Refusal::CampaignCancelled => "The campaign of this cp_id is cancelled",
        Refusal::NotFound => "The account has no such message, campaign or line",
        Refusal::Unavailable => "Nothing was logged or changed, or the outcome is unknown",
        Refusal::OverRate => "The account is over its quota of messages a second",
        Refusal::OverBacklog => "The account is over its quota of waiting messages",
        Refusal::Crowded => "The account has as many lists, exports or batches under way as it may",
    }
}
