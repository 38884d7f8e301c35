//! What the tests stand on.

pub mod amqp_forwarder;
pub mod broker;
pub mod rabbitmq;
