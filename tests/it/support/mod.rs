//! What the tests stand on.

pub mod amqp_forwarder;
pub mod broker;
pub mod database;
pub mod graph_host;
pub mod pipeline;
pub mod producer;
pub mod rabbitmq;
pub mod serve;
pub mod store;
pub mod unreadable;
pub mod vanishing;

/// The TLS provider that `main` installs in the program; tests call parts of the program directly.
pub fn install_crypto() {
    // Fails only if a test of this process has done it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
