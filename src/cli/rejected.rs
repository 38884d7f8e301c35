//! `rejected list`: the submissions that were refused, as the queue `cdls.rejected` keeps them. Nothing is taken away.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::output::{Output, tell_note};
use super::screen::Screen;
use super::table::{Column, Table};
use crate::broker::public;
use crate::broker::rabbitmq::rejected::{RejectedMessage, newest};
use crate::settings::BrokerSettings;
use crate::text::timestamp;

/// A hundred thousand are read within seconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub enum RejectedCommand {
    /// Show the newest refused submissions, oldest first; they stay in the queue
    List {
        /// Number of submissions
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        lines: u32,
        /// Show the submissions of senders that are not known; their parameters are not kept
        #[arg(long)]
        unauthenticated: bool,
    },
}

/// A refused submission as shown; its token is not in the queue.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(serialize_with = "crate::text::time_or_null")]
    at: Option<OffsetDateTime>,
    class: String,
    dest: Option<String>,
    status_code: Option<i64>,
    status: String,
    detail: String,
    user_id: Option<String>,
    message_id: Option<String>,
    parameters: Value,
}

#[derive(Serialize)]
struct List {
    rejected: Vec<Shown>,
    /// How many the queue holds.
    queued: u32,
}

pub async fn run(command: RejectedCommand, settings: &BrokerSettings, out: &Output) -> anyhow::Result<()> {
    let RejectedCommand::List { lines, unauthenticated } = command;
    ensure!(
        settings.url.expose_secret() != "embedded",
        "setting broker.url is embedded: only submissions over RabbitMQ are kept when they are refused"
    );
    let queue = if unauthenticated { public::UNAUTHENTICATED } else { public::REJECTED };
    let (found, queued) = newest(settings, queue, lines as usize, PATIENCE)
        .await
        .map_err(|error| anyhow!("RabbitMQ: {error}"))?;
    let list = List { rejected: found.into_iter().map(shown).collect(), queued };
    let left = list.queued as usize - list.rejected.len().min(list.queued as usize);
    if left > 0 && !out.json {
        tell_note(&format!("{left} older ones are not shown (--lines)"));
    }
    out.answer(&list, |list| table(&list.rejected, out.screen))
}

fn shown(message: RejectedMessage) -> Shown {
    let parameters: Value = serde_json::from_slice(&message.body).unwrap_or_default();
    let dest = match &parameters["dest"] {
        Value::String(dest) => Some(dest.clone()),
        Value::Number(dest) => Some(dest.to_string()),
        _ => None,
    };
    Shown {
        at: message.at.and_then(|at| OffsetDateTime::from_unix_timestamp(i64::try_from(at).ok()?).ok()),
        class: message.routing_key,
        dest,
        status_code: message.status_code,
        status: message.status,
        detail: message.detail,
        user_id: message.user_id,
        message_id: message.message_id,
        parameters,
    }
}

fn table(rejected: &[Shown], screen: Screen) -> String {
    const COLUMNS: [Column; 6] = [
        Column::new("AT"),
        Column::text("CLASS", 9),
        Column::text("DEST", 17),
        Column::number("CODE"),
        Column::text("STATUS", 16),
        Column::text("DETAIL", 20).spare(1),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for row in rejected {
        table.add([
            row.at.map(timestamp).unwrap_or_default(),
            row.class.clone(),
            row.dest.clone().unwrap_or_default(),
            row.status_code.map(|code| code.to_string()).unwrap_or_default(),
            row.status.clone(),
            row.detail.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submission_is_shown_with_its_reason() {
        let message = RejectedMessage {
            status_code: Some(220),
            status: "No dest".into(),
            detail: "`dest` is missing or blank".into(),
            routing_key: "messenger".into(),
            at: Some(1_764_072_000),
            user_id: Some("shop".into()),
            message_id: None,
            body: br#"{"app_id":1,"dest":25319}"#.to_vec(),
        };
        let row = shown(message);
        assert_eq!((row.dest.as_deref(), row.parameters["app_id"].as_i64()), (Some("25319"), Some(1)));
        let text = table(&[row], Screen { width: None, colours: false });
        for part in ["2025-11-25T12:00:00.000Z", "messenger", "25319", "220", "No dest", "missing or blank"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
