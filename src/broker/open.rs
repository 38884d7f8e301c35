//! The choice of a broker by its URL.

use super::embedded::EmbeddedBroker;
use super::rabbitmq::RabbitBroker;
use super::{Arrivals, SharedBroker};
use crate::settings::{BrokerSettings, SettingsError};
use secrecy::ExposeSecret;

/// The reason why a broker cannot be opened. A broker that is down is no error: it is connected to in the
/// background.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// `broker.url` is not usable. The text gives the reason and never the URL, which may hold a password.
    #[error("setting broker.url: {0}; write embedded, amqp://user:password@host:5672/vhost or amqps://…")]
    Url(String),
    #[error(transparent)]
    Setting(#[from] SettingsError),
}

/// Open the broker that `broker.url` names. RabbitMQ is connected to in the background, for ever, so this
/// function does not wait for the network. Needs a tokio runtime; `amqps` needs rustls's process-wide
/// provider to be installed.
pub async fn open(settings: &BrokerSettings) -> Result<(SharedBroker, Arrivals), BrokerError> {
    if settings.url.expose_secret() == "embedded" {
        let (broker, arrivals) = EmbeddedBroker::open();
        Ok((broker, arrivals))
    } else {
        let (broker, arrivals) = RabbitBroker::open(settings)?;
        Ok((broker, arrivals))
    }
}
