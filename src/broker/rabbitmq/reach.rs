//! The check that RabbitMQ answers: one connection, opened and closed again.

use std::time::Duration;

use super::connection::Endpoint;
use crate::settings::BrokerSettings;

/// Connect, log in, and disconnect. The error gives the reason of a failure within `limit`, never the
/// password.
pub async fn reach(settings: &BrokerSettings, limit: Duration) -> Result<(), String> {
    let endpoint = Endpoint::of(settings).map_err(|error| error.to_string())?;
    match tokio::time::timeout(limit, endpoint.connect("check")).await {
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(limit))),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(link)) => {
            link.close().await;
            Ok(())
        }
    }
}
