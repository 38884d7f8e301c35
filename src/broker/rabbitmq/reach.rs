//! Whether RabbitMQ answers: one connection, opened and closed again.

use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

/// Connects, logs in, and disconnects. An error says why that failed within `limit`, never with the password.
pub async fn reach(url: &SecretString, limit: Duration) -> Result<(), String> {
    let properties = ConnectionProperties::default().with_connection_name("meta-dispatch check".into());
    let connect = Connection::connect(url.expose_secret(), properties);
    match tokio::time::timeout(limit, connect).await {
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(limit))),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(connection)) => {
            // It answered; whether it says goodbye in time changes nothing.
            let _ = tokio::time::timeout(limit, connection.close(200, "checked".into())).await;
            Ok(())
        }
    }
}
