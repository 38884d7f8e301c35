//! The HTTP interface for submissions: a send endpoint for each channel, and batches. The module that serves
//! a route also documents it.
//!
//! Never here: a log line with a query, a body or a header, which hold tokens and texts.

mod batch;
mod batch_answer;
mod documented;
mod least_rate;
pub(crate) mod send;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::routing::{MethodRouter, get};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::Ingest;
use crate::channel::Class;
use crate::edge::Refusal;
use crate::edge::http::refused;

/// Return the routes of submissions, each with its part of the document.
pub fn routes() -> OpenApiRouter<Arc<Ingest>> {
    let endpoints = Class::ALL.iter().map(|class| endpoint(*class));
    endpoints
        .fold(OpenApiRouter::with_openapi(documented::components()), OpenApiRouter::routes)
        .routes(routes!(batch::batch))
        .layer(CatchPanicLayer::custom(|_| refused(Refusal::Unavailable)))
}

/// Return a router of the same routes; any other path is 404.
pub fn router(ingest: Arc<Ingest>) -> Router {
    routes().with_state(ingest).into()
}

/// Return the send endpoint of a class. `HEAD` does not send: axum would answer it as `GET`.
fn endpoint(class: Class) -> UtoipaMethodRouter<Arc<Ingest>> {
    let send = move |State(ingest): State<Arc<Ingest>>, request: Request| async move {
        send::answer(&ingest, class, request).await
    };
    let not_allowed = async || (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, POST")]);
    let methods: MethodRouter<Arc<Ingest>> = get(send).post(send).head(not_allowed).fallback(not_allowed);
    (Vec::new(), documented::endpoint(class), methods)
}
