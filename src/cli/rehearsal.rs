//! `simulate --profile`: the rehearsal of a campaign, as two tables or as JSON.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use config::{Config, File, FileFormat};

use super::output::Output;
use super::screen::Screen;
use super::table::{Column, Table};
use crate::channel::{Class, Rates};
use crate::rehearsal::{Bound, LineReport, Profile, Report, Usual, rehearse};
use crate::settings::Settings;

const LINES: [Column; 7] = [
    Column::text("LINE", 12),
    Column::number("RECIPIENTS"),
    Column::number("SENT"),
    Column::number("OUTSIDE"),
    Column::number("CALLS"),
    Column::new("TAKES"),
    Column::number("PER_SECOND"),
];
const LIMITS: [Column; 5] = [
    Column::text("LINE", 12),
    Column::new("WAITS_FOR"),
    Column::new("FROM"),
    Column::new("UNTIL"),
    Column::number("OF_THE_TIME"),
];

/// Rehearse the campaign of a file.
pub fn run(file: &Path, settings: &Settings, out: &Output) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("--profile: cannot read {}", file.display()))?;
    let profile: Profile = Config::builder()
        .add_source(File::from_str(&text, FileFormat::Toml))
        .build()
        .and_then(Config::try_deserialize)
        .with_context(|| format!("--profile: {} is no profile of a campaign", file.display()))?;
    let report = rehearse(&profile, &usual(settings))
        .with_context(|| format!("--profile: {} cannot be rehearsed", file.display()))?;
    out.answer(&report, |report| shown(report, out.screen))
}

/// Return what the program does where the profile says nothing.
fn usual(settings: &Settings) -> Usual {
    let rates = |class: &Class| {
        let limits = settings.limits.of(*class);
        (*class, Rates { text: limits.text, media: limits.media })
    };
    Usual {
        rates: Class::ALL.iter().map(rates).collect(),
        enforce_ceilings: settings.limits.enforce_ceilings,
        concurrency: u32::try_from(settings.dispatch.concurrency).unwrap_or(u32::MAX),
        window_check: settings.dispatch.window_check,
    }
}

fn shown(report: &Report, screen: Screen) -> String {
    let mut lines = Table::new(&LINES, screen);
    for line in &report.lines {
        lines.add([
            line.name.clone(),
            line.recipients.to_string(),
            line.sent.to_string(),
            line.outside.to_string(),
            line.calls.to_string(),
            duration(line.takes_seconds),
            format!("{:.1}", line.calls as f64 / line.takes_seconds.max(1) as f64),
        ]);
    }
    let mut limits = Table::new(&LIMITS, screen);
    for (line, bound) in
        report.lines.iter().flat_map(|line| line.limits.iter().map(move |bound| (line, bound)))
    {
        limits.add([
            line.name.clone(),
            bound.limit.as_str().to_owned(),
            duration(bound.from_seconds),
            duration(bound.until_seconds),
            share(bound, line),
        ]);
    }
    format!("{}\n\n{}\n\n{}\n{}", sum(report), lines.render(), limits.render(), clamped(report))
}

fn sum(report: &Report) -> String {
    let Report { recipients, sent, outside, .. } = report;
    let takes = duration(report.takes_seconds);
    format!(
        "The campaign takes {takes}.\n{sent} of {recipients} messages are sent; {outside} end outside their window."
    )
}

/// Return a note for each line whose limit is above Meta's ceiling.
fn clamped(report: &Report) -> String {
    let lines = report.lines.iter().filter_map(|line| Some((line, line.clamped_from?)));
    lines
        .map(|(line, wanted)| {
            let LineReport { name, rate_text, rate_media, .. } = line;
            format!(
                "\nThe limit of {wanted} a second is above Meta's ceiling:\n{name} has {rate_text} texts and \
                 {rate_media} media a second.\n"
            )
        })
        .collect()
}

fn share(bound: &Bound, line: &LineReport) -> String {
    format!("{} %", bound.seconds * 100 / line.takes_seconds.max(1))
}

fn duration(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::table::widest;
    use super::*;
    use crate::rehearsal::Binding;

    fn report() -> Report {
        let limits = vec![Bound {
            limit: Binding::LineBudget,
            from_seconds: 900,
            until_seconds: 86_399,
            seconds: 80_000,
        }];
        let line = LineReport {
            name: "A shop with a long name, and a longer one".to_owned(),
            class: Class::MESSENGER,
            takes_seconds: 86_399,
            recipients: 1_000_000,
            sent: 900_000,
            outside: 100_000,
            calls: 1_000_000,
            rate_text: 300,
            rate_media: 10,
            clamped_from: Some(500),
            limits,
        };
        Report {
            takes_seconds: 86_399,
            recipients: 1_000_000,
            sent: 900_000,
            outside: 100_000,
            calls: 1_000_000,
            lines: vec![line],
        }
    }

    #[test]
    fn tables_fit_80_columns() {
        let text = shown(&report(), Screen { width: Some(80), colours: false });
        let others: Vec<&str> = text.lines().filter(|line| !line.contains("has 300 texts")).collect();
        assert!(widest(&others.join("\n")) <= 80, "{text}");
        for part in ["takes 23h 59m 59s", "1000000", "line budget", "15m", "92 %", "above Meta's ceiling"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
