//! `send`: one message, over HTTP.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::output::Output;
use super::parse;
use super::remote::RemoteArgs;
use crate::message::{Class, LineId};

/// Arguments of `send`: the parameters of the send endpoints.
#[derive(Debug, Args)]
pub struct SendArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// The line that sends
    #[arg(long, value_name = "V8L_ID", value_parser = parse::id(LineId))]
    app_id: LineId,
    /// The channel of the line
    #[arg(long, default_value = "messenger", value_parser = parse::class())]
    class: Class,
    /// The recipient's PSID or IGSID
    #[arg(long)]
    dest: String,
    /// The text, or the URL of the asset
    #[arg(long, value_name = "TEXT|URL")]
    mdata: String,
    /// text, image, audio, video or (Messenger) file
    #[arg(long, default_value = "text")]
    mtype: String,
    /// Kept in the log, not sent
    #[arg(long)]
    mcaption: Option<String>,
    /// A reference of your own
    #[arg(long)]
    msg_id: Option<String>,
    /// The campaign the message belongs to
    #[arg(long)]
    cp_id: Option<String>,
    /// high or bulk
    #[arg(long)]
    priority: Option<String>,
    /// Not before: an RFC 3339 time or Unix seconds
    #[arg(long, value_name = "TIME")]
    send_at: Option<String>,
    /// Not later than this many seconds after
    #[arg(long, value_name = "SECONDS")]
    valid_for: Option<u64>,
    /// Refuse if the recipient had such a message less than this many seconds ago
    #[arg(long, value_name = "SECONDS")]
    httpdup: Option<u64>,
    /// Wait this many seconds for the outcome
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u8).range(0..=30))]
    wait: Option<u8>,
    /// The same key and parameters again log no second message
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

pub async fn run(arguments: SendArgs, out: &Output) -> anyhow::Result<()> {
    let remote = arguments.remote.connect()?;
    let endpoint = match arguments.class {
        Class::Messenger => "MakeMessenger.php",
        Class::Instagram => "MakeInstagram.php",
    };
    let mut request = remote.request(Method::POST, endpoint).json(&parameters(&arguments));
    if let Some(key) = &arguments.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = remote.ask(request).await?;
    out.answer(&answer["return"], |answer| match answer["messageId"].as_str() {
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
