//! `campaign status`, `pause`, `resume` and `cancel`: the progress of a campaign, and the commands that change it; over
//! HTTP.

use anyhow::Context;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::Value;

use super::output::{Output, printable};
use super::parse;
use super::remote::RemoteArgs;
use super::screen::Screen;
use super::table::{Column, Table};
use crate::domain::Status;

/// One campaign, and the process to call.
#[derive(Debug, Args)]
pub struct OneArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Label of the campaign
    #[arg(value_name = "CP_ID", value_parser = parse::campaign_in_path)]
    cp_id: String,
}

/// Which campaigns are listed, and the process to call.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// State; list only campaigns in it: running, paused, cancelled or finished
    #[arg(long, value_parser = ["running", "paused", "cancelled", "finished"])]
    state: Option<String>,
    /// Number of campaigns
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    lines: u32,
}

/// Lists the newest campaigns.
pub async fn list(args: &ListArgs, out: &Output) -> anyhow::Result<()> {
    let remote = args.remote.connect()?;
    let state = args.state.as_ref().map(|state| format!("&state={state}")).unwrap_or_default();
    let request = remote.request(Method::GET, &format!("campaigns?limit={}{state}", args.lines));
    let page = remote.ask(request, "campaigns").await?;
    out.answer(&page, |page| table(page, out.screen))
}

fn table(page: &Value, screen: Screen) -> String {
    const COLUMNS: [Column; 7] = [
        Column::text("CP_ID", 12),
        Column::state("STATE"),
        Column::number("TOTAL"),
        Column::number("OK"),
        Column::number("ERROR"),
        Column::number("RATE/s"),
        Column::new("ETA").spare(1),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for campaign in page["campaigns"].as_array().into_iter().flatten() {
        let text = |name: &str| campaign[name].as_str().unwrap_or("-").to_owned();
        let rows = |status: &str| campaign["counts"][status].to_string();
        let (total, rate) = (campaign["total"].to_string(), campaign["rate"].to_string());
        table.add([text("cp_id"), text("state"), total, rows("OK"), rows("ERROR"), rate, text("eta")]);
    }
    table.render()
}

/// Calls a path of the campaign, and shows the progress that is answered.
pub async fn ask(method: Method, one: &OneArgs, command: &str, out: &Output) -> anyhow::Result<()> {
    let remote = one.remote.connect()?;
    let label = utf8_percent_encode(&one.cp_id, NON_ALPHANUMERIC);
    let request = remote.request(method, &format!("campaigns/{label}{command}"));
    let progress = remote.ask(request, "counts").await.with_context(|| format!("campaign {}", one.cp_id))?;
    out.answer(&progress, |progress| human(progress, out.screen))
}

/// The campaign as a row, its messages by status, and a note of what a command has changed.
fn human(progress: &Value, screen: Screen) -> String {
    const CAMPAIGN: [Column; 5] = [
        Column::text("CP_ID", 12),
        Column::state("STATE"),
        Column::number("TOTAL"),
        Column::number("RATE/s"),
        Column::new("ETA"),
    ];
    const COUNTS: [Column; 2] = [Column::state("STATUS"), Column::number("MESSAGES")];
    let text = |name: &str| progress[name].as_str().unwrap_or("-").to_owned();
    let mut campaign = Table::new(&CAMPAIGN, screen);
    let (total, rate) = (progress["total"].to_string(), progress["rate"].to_string());
    campaign.add([text("cp_id"), text("state"), total, rate, text("eta")]);
    let mut counts = Table::new(&COUNTS, screen);
    for status in Status::ALL {
        let rows = progress["counts"][status.as_str()].as_i64().unwrap_or(0);
        if rows != 0 {
            counts.add([status.to_string(), rows.to_string()]);
        }
    }
    let touched = progress["touched"].as_i64().map(|rows| format!("\n\n{rows} messages touched"));
    let notes = notes(progress).iter().map(|note| format!("\n{note}")).collect::<String>();
    let notes = if notes.is_empty() { notes } else { format!("\n{notes}") };
    format!("{}\n\n{}{}{notes}", campaign.render(), counts.render(), touched.unwrap_or_default())
}

/// Its errors, and its lines that do not send.
fn notes(progress: &Value) -> Vec<String> {
    let list = |name: &str| progress[name].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_i64().map(|number| number.to_string());
    let errors = list("errors").into_iter().map(|error| {
        let code = [number(&error["error_code"]), number(&error["error_subcode"])];
        let code = code.into_iter().flatten().collect::<Vec<_>>().join("/");
        let kind = error["error_kind"].as_str().unwrap_or_default();
        format!("{} messages ended as ERROR: {}", error["rows"], format!("{kind} {code}").trim())
    });
    let lines = list("lines").into_iter().filter(|line| line["state"] != "sending").map(|line| {
        let text = |name: &str| line[name].as_str().map(|text| printable(text).into_owned());
        let said = [text("reason"), text("action")].into_iter().flatten().collect::<Vec<_>>().join(". ");
        format!("line {} is {}: {said}", line["app_id"], text("state").unwrap_or_default())
    });
    errors.chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::super::table::widest;
    use super::*;

    #[test]
    fn shows_the_campaign_and_its_counts() {
        let progress = json!({
            "cp_id": "offers", "state": "paused", "total": 5000, "rate": 0.0, "eta": null, "touched": 812,
            "counts": {"PENDING": 812, "SENDING": 0, "RETRY": 0, "OK": 4188, "ERROR": 0, "UNKNOWN": 0, "CANCELLED": 0},
        });
        let expected = "\
CP_ID   STATE   TOTAL  RATE/s  ETA
offers  paused   5000     0.0  -

STATUS   MESSAGES
PENDING       812
OK           4188

812 messages touched";
        assert_eq!(human(&progress, Screen { width: Some(80), colours: false }), expected);
    }

    #[test]
    fn errors_and_lines_that_do_not_send_stand_below() {
        let progress = json!({
            "errors": [{"error_code": 551, "error_subcode": null, "error_kind": "refused", "rows": 3}],
            "lines": [
                {"app_id": 1, "state": "sending", "reason": null, "action": null},
                {"app_id": 2, "state": "no_token", "reason": "The line has no token", "action": "Set one"},
            ],
        });
        let expected =
            ["3 messages ended as ERROR: refused 551", "line 2 is no_token: The line has no token. Set one"];
        assert_eq!(notes(&progress), expected);
    }

    #[rstest]
    fn fits_a_terminal(#[values(80, 160)] width: u16) {
        let progress = json!({
            "cp_id": "a label that is longer than any line 日本語 👍 ".repeat(9), "state": "cancelled",
            "total": 1_234_567_890, "rate": 300.0, "eta": "2026-11-23T14:15:20.000Z", "counts": {"OK": 1_234_567_890},
        });
        let text = human(&progress, Screen { width: Some(width), colours: false });
        assert_eq!((text.lines().count(), widest(&text)), (5, width), "{text}");
    }
}
