//! The check that RabbitMQ answers: one connection, opened and closed again.

use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

/// Connect, log in, and disconnect. The error gives the reason of a failure within `limit`, never the
/// password.
pub async fn reach(url: &SecretString, limit: Duration) -> Result<(), String> {
    let properties = ConnectionProperties::default().with_connection_name("meta-dispatch check".into());
    let connect = Connection::connect(url.expose_secret(), properties);
    match tokio::time::timeout(limit, connect).await {
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(limit))),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(connection)) => {
            // The broker answered; a late goodbye changes nothing.
            let _ = tokio::time::timeout(limit, connection.close(200, "checked".into())).await;
            Ok(())
        }
    }
}
