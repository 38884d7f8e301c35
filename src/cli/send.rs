//! `send`: one message, over HTTP.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::output::{Output, printable, reason, tell_note};
use super::parse;
use super::remote::RemoteArgs;
use crate::channel::Class;
use crate::domain::LineId;

/// Arguments of `send`: the parameters of the send endpoints.
#[derive(Debug, Args)]
pub struct SendArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Id of the line that sends
    #[arg(long, value_name = "V8L_ID", value_parser = parse::id(LineId))]
    app_id: LineId,
    /// Channel of the line
    #[arg(long, default_value = "messenger", value_parser = parse::class())]
    class: Class,
    /// PSID or IGSID of the recipient
    #[arg(long)]
    dest: String,
    /// Text, or URL of the asset
    #[arg(long, value_name = "TEXT|URL")]
    mdata: String,
    /// Type of the message: text, image, audio, video or (Messenger) file
    #[arg(long, default_value = "text")]
    mtype: String,
    /// Caption; kept in the log, not sent
    #[arg(long)]
    mcaption: Option<String>,
    /// Reference of the caller; kept in the log, not sent
    #[arg(long)]
    msg_id: Option<String>,
    /// Label of the message's campaign
    #[arg(long, value_parser = parse::campaign)]
    cp_id: Option<String>,
    /// Lane: high or bulk
    #[arg(long)]
    priority: Option<String>,
    /// Earliest time to send: RFC 3339 or Unix seconds (default: now)
    #[arg(long, value_name = "TIME")]
    send_at: Option<String>,
    /// Seconds after that time in which the message may be sent
    #[arg(long, value_name = "SECONDS")]
    valid_for: Option<u64>,
    /// Seconds in which a second message to the same line and recipient, both with --httpdup, is refused
    #[arg(long, value_name = "SECONDS")]
    httpdup: Option<u64>,
    /// Seconds to wait for the outcome
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u8).range(0..=30))]
    wait: Option<u8>,
    /// Idempotency key; a repeated call with the same key and parameters logs no second message
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

pub async fn run(arguments: SendArgs, out: &Output) -> anyhow::Result<()> {
    let remote = arguments.remote.connect()?;
    let mut request = remote.request(Method::POST, arguments.class.endpoint).json(&parameters(&arguments));
    if let Some(key) = &arguments.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = remote.submit(request).await?;
    if let Some(reason) = answer.as_object().and_then(reason) {
        tell_note(&printable(&reason));
    }
    out.answer(&answer, |answer| match answer["messageId"].as_str() {
        Some(id) if !id.is_empty() => format!("sent: message {}, Meta's id {id}", answer["cdls_id"]),
        _ => format!("accepted: message {}", answer["cdls_id"]),
    })
}

fn parameters(arguments: &SendArgs) -> Value {
    let all = json!({
        "app_id": arguments.app_id,
        "dest": arguments.dest,
        "mdata": arguments.mdata,
        "mtype": arguments.mtype,
        "mcaption": arguments.mcaption,
        "msg_id": arguments.msg_id,
        "cp_id": arguments.cp_id,
        "priority": arguments.priority,
        "send_at": arguments.send_at,
        "valid_for": arguments.valid_for,
        "httpdup": arguments.httpdup,
        "wait": arguments.wait,
    });
    let Value::Object(all) = all else { return all };
    Value::Object(all.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
}
