//! HTTP/1.1 connections, for the send endpoints and the admin listener: which connection gets a place, how long a
//! client may take, and the marks of each request and answer.
//!
//! `axum::serve` is not used, because it installs no timer: a client could hold a connection for ever by
//! sending its headers slowly. Never here: the content of requests and answers.

mod connection;
mod limits;
mod listener;
mod write_timeout;

pub use connection::ConnectionPhase;
pub use limits::{ConnectionLimits, OTHER_FILES};
pub use listener::{Listening, ServeOptions, serve};
