//! The gate in front of the calls of senders: a request from an address that is shut out is refused before its body is read,
//! and before any look-up.
//!
//! Never here: a count of failures; the check of the token counts.

use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::http::{bearer, refused};
use super::{Caller, Directory, Refusal};

/// Put the gate in front of a router.
pub fn gated(router: Router, directory: Arc<Directory>) -> Router {
    router.layer(from_fn_with_state(directory, pass))
}

async fn pass(State(directory): State<Arc<Directory>>, request: Request, next: Next) -> Response {
    match shut_out(&directory, &request) {
        Some(refusal) => refused(refusal),
        None => next.run(request).await,
    }
}

fn shut_out(directory: &Directory, request: &Request) -> Option<Refusal> {
    let caller = Caller::of(request.extensions(), request.headers());
    let query = request.uri().query().unwrap_or_default();
    let has_body = !request.body().is_end_stream();
    directory.shut_out(&caller, query, || bearer(request.headers()), has_body)
}
