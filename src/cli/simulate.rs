//! `simulate`: the Graph simulator alone, or the rehearsal of a campaign.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::output::Output;
use super::{parse, rehearsal};
use crate::settings::Settings;
use crate::shutdown::{self, Hangup};
use crate::simulator::{
    AppBudget, BudgetRules, LineBudget, LineHeader, Simulator, SimulatorOptions, UsageHeaders, WebhookRules,
    WindowRules,
};
use crate::telemetry;

const USAGE_HEADERS: [&str; 5] = ["always", "rarely", "late", "broken", "never"];

/// Arguments of `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Rehearse the campaign of this TOML file in virtual time, print the result, and exit
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "latency", "jitter", "limit_per_token"])]
    profile: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Time that each answer takes
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Greatest random time added to the latency
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    jitter: Duration,
    /// Limit of a page token, in messages a second; the simulator refuses further messages (default: no limit)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit_per_token: Option<u32>,
    #[command(flatten)]
    played: PlayedArgs,
}

/// The parts of Meta that the simulator plays beside the send call.
#[derive(Debug, Args)]
#[group(id = "played", conflicts_with = "profile", multiple = true)]
struct PlayedArgs {
    /// Budget of each line in a rolling window, such as 1000/60s
    #[arg(long, value_name = "CALLS/WINDOW", value_parser = budget)]
    line_budget: Option<CallBudget>,
    /// Budget of each app in a rolling window, such as 6000/60s
    #[arg(long, value_name = "CALLS/WINDOW", value_parser = budget)]
    app_budget: Option<CallBudget>,
    /// When answers name the use of budgets in headers (default: always)
    #[arg(long, value_name = "WHEN", value_parser = PossibleValuesParser::new(USAGE_HEADERS))]
    usage_headers: Option<String>,
    /// Refuse messages to recipients whose window is not open
    #[arg(long)]
    enforce_windows: bool,
    /// Send webhooks to this URL, signed with the secret of --webhooks-secret-file
    #[arg(long, value_name = "URL", requires = "webhooks_secret_file")]
    webhooks_url: Option<String>,
    /// File with the app secret that signs webhooks
    #[arg(long, value_name = "FILE", requires = "webhooks_url")]
    webhooks_secret_file: Option<PathBuf>,
    /// Time from a message to its receipts
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, requires = "webhooks_url")]
    webhooks_delay: Option<Duration>,
}

/// Calls in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallBudget {
    calls: u64,
    window: Duration,
}

/// Parse `1000/60s`.
fn budget(text: &str) -> Result<CallBudget, String> {
    let (calls, window) = text.split_once('/').ok_or("must be calls and a window, such as 1000/60s")?;
    let calls = calls.trim().parse().map_err(|_| "calls must be a whole number".to_owned())?;
    Ok(CallBudget { calls, window: parse::duration(window.trim())? })
}

#[derive(Serialize)]
struct Listening {
    base_url: String,
}

pub async fn run(arguments: SimulateArgs, settings: &Settings, out: &Output) -> Result<()> {
    if let Some(profile) = &arguments.profile {
        return rehearsal::run(profile, settings, out);
    }
    let stop = shutdown::on_signal(Hangup::Stops, telemetry::finish)?;
    let options = SimulatorOptions {
        listen: arguments.listen,
        latency: arguments.latency,
        latency_jitter: arguments.jitter,
        limit_per_token: arguments.limit_per_token,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(options)?;
    arguments.played.begin(&simulator)?;
    out.answer(&Listening { base_url: simulator.base_url() }, |listening| {
        format!(
            "Simulating Graph. Set graph.base_url to {} (META_DISPATCH__GRAPH__BASE_URL).\n\
             Evidence: GET http://{address}/simulator/calls and /simulator/count; POST /simulator/reset?latency=80ms.",
            listening.base_url,
            address = simulator.address()
        )
    })?;
    stop.cancelled().await;
    simulator.shutdown().await;
    Ok(())
}

impl PlayedArgs {
    /// Let the simulator play what was asked for.
    fn begin(&self, simulator: &Simulator) -> Result<()> {
        if self.line_budget.is_some() || self.app_budget.is_some() {
            simulator.play_budgets(self.budgets())?;
        }
        if self.enforce_windows {
            simulator.play_windows(WindowRules { enforced: true, ..WindowRules::default() })?;
        }
        if let (Some(url), Some(file)) = (&self.webhooks_url, &self.webhooks_secret_file) {
            let delay = self.webhooks_delay.unwrap_or_default();
            simulator.play_webhooks(WebhookRules {
                url: url.clone(),
                app_secret: Some(secret(file)?.into()),
                delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                ..WebhookRules::default()
            })?;
        }
        Ok(())
    }

    fn budgets(&self) -> BudgetRules {
        let headers = match self.usage_headers.as_deref() {
            Some("rarely") => UsageHeaders::Rarely,
            Some("late") => UsageHeaders::Late,
            Some("broken") => UsageHeaders::Broken,
            Some("never") => UsageHeaders::Never,
            _ => UsageHeaders::Always,
        };
        let app = |CallBudget { calls, window }| AppBudget { calls, window };
        let line =
            |CallBudget { calls, window }| LineBudget { calls, window, code: None, header: LineHeader::Both };
        BudgetRules {
            app: self.app_budget.map(app),
            line: self.line_budget.map(line),
            headers,
            ..BudgetRules::default()
        }
    }
}

fn secret(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("--webhooks-secret-file: cannot read {}", file.display()))?;
    let text = text.trim();
    anyhow::ensure!(!text.is_empty(), "--webhooks-secret-file: {} is empty", file.display());
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_calls_and_a_window() {
        let minute = Duration::from_secs(60);
        assert_eq!(budget("1000/60s"), Ok(CallBudget { calls: 1_000, window: minute }));
        assert_eq!(budget("7 / 1m"), Ok(CallBudget { calls: 7, window: minute }));
        for wrong in ["1000", "x/60s", "1000/soon", "-1/60s"] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
    }
}
