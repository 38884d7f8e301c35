//! Access to the admin listener: the host of a request, its origin, its token. Probes (`/healthz`, `/readyz`)
//! are answered in any case.
//!
//! Every answer carries the headers that keep a browser from framing, storing or running it. Never here: the
//! purpose of a request.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::hosts::Hosts;
use super::tokens::{AdminRole, TokenFile};
use crate::settings::{AdminAddress, AdminSettings};

/// Paths that are open to everybody. They hold no secret.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// The headers of every answer. There is no page: nothing may be loaded, run or framed.
const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
];

/// The rules of one listener.
pub struct Access {
    hosts: Hosts,
    door: Door,
}

enum Door {
    /// Every request is answered: loopback, or a socket.
    Open,
    /// Probes alone are answered: beyond loopback, without tokens.
    Shut,
    Tokens(TokenFile),
}

/// The reason why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denial {
    OtherHost,
    OtherSite,
    Shut,
    NoToken,
    UnknownToken,
    ReadOnly,
}

impl Access {
    /// Return the rules of a listener on this address, and read its tokens.
    pub async fn new(settings: &AdminSettings, listen: &AdminAddress) -> Result<Access> {
        let hosts = Hosts::new(listen, settings.hosts()?);
        let door = if !settings.token_file.is_empty() {
            let tokens = TokenFile::open(settings.token_file.as_ref()).await;
            Door::Tokens(tokens.context("setting admin.token_file")?)
        } else if listen.is_local() {
            Door::Open
        } else {
            tracing::warn!(
                %listen,
                "admin.listen is beyond loopback without admin.token_file: only /healthz and /readyz are answered; set \
                 admin.token_file, or let admin.listen name loopback or unix:/path"
            );
            Door::Shut
        };
        Ok(Access { hosts, door })
    }

    async fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Denial> {
        if PROBES.contains(&uri.path()) && is_read(method) {
            return Ok(());
        }
        let host = host(uri, headers).filter(|host| self.hosts.allow(host)).ok_or(Denial::OtherHost)?;
        if !is_read(method) && !is_of_own_site(host, headers) {
            return Err(Denial::OtherSite);
        }
        let role = match &self.door {
            Door::Open => AdminRole::Operate,
            Door::Shut => return Err(Denial::Shut),
            Door::Tokens(tokens) => {
                let token = token(headers).ok_or(Denial::NoToken)?;
                tokens.role(&token).await.ok_or(Denial::UnknownToken)?
            }
        };
        let needed = if is_read(method) { AdminRole::Read } else { AdminRole::Operate };
        if role < needed { Err(Denial::ReadOnly) } else { Ok(()) }
    }
}

/// Answer a request if it may be answered, and mark the answer. A layer of every route.
pub async fn answer_if_allowed(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let checked = access.check(request.method(), request.uri(), request.headers()).await;
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(denial) => denial.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a request only reads.
fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Return the host of a request. The one of an absolute URI counts before the header.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut given = headers.get_all(header::HOST).iter();
    let only = given.next().filter(|_| given.next().is_none());
    uri.authority().map(|authority| authority.as_str()).or_else(|| only?.to_str().ok())
}

/// Whether a request that changes something comes from a page of this listener, or from no page. Browsers
/// name the site in `Sec-Fetch-Site`, older ones the origin.
fn is_of_own_site(host: &str, headers: &HeaderMap) -> bool {
    let all_are = |name: &str, is_own: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(is_own))
    };
    let is_own_origin = |origin: &str| {
        let (scheme, authority) = origin.split_once("://").unwrap_or_default();
        matches!(scheme, "http" | "https") && authority.eq_ignore_ascii_case(host)
    };
    all_are("sec-fetch-site", &|site: &str| matches!(site, "same-origin" | "none"))
        && all_are("origin", &is_own_origin)
}

/// Return the token of `Authorization: Bearer`, or the password of `Basic`, which a browser asks for.
fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = value.trim().split_once(' ')?;
    let given = given.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(given.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(given).ok()?).ok()?;
    let (_user, password) = decoded.split_once(':')?;
    Some(password.to_owned())
}

impl Denial {
    fn status(self) -> StatusCode {
        match self {
            Denial::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Denial::OtherSite | Denial::Shut | Denial::ReadOnly => StatusCode::FORBIDDEN,
            Denial::NoToken | Denial::UnknownToken => StatusCode::UNAUTHORIZED,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Denial::OtherHost => {
                "This host is not a name of the admin listener: ask by localhost or the listening address, or add the \
                 name to the setting admin.hosts.\n"
            }
            Denial::OtherSite => "The request comes from a page of another site.\n",
            Denial::Shut => {
                "The admin listener is beyond loopback and has no tokens: set admin.token_file, or let admin.listen name \
                 loopback or unix:/path.\n"
            }
            Denial::NoToken => {
                "The request has no token: send one of admin.token_file as `Authorization: Bearer`, or as the password.\n"
            }
            Denial::UnknownToken => "The token is none of admin.token_file.\n",
            Denial::ReadOnly => "The token may only read: use one of the role operate.\n",
        }
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.text()).into_response();
        if self.status() == StatusCode::UNAUTHORIZED {
            for scheme in
                ["Bearer realm=\"meta-dispatch\"", "Basic realm=\"meta-dispatch\", charset=\"UTF-8\""]
            {
                response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
        }
        response
    }
}

#[cfg(test)]
#[path = "access/tests.rs"]
mod tests;
