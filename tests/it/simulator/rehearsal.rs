//! `simulate --profile`, as a command.

use std::process::{Command, Output};

use serde_json::Value;

const EXAMPLE: &str = "examples/campaign.toml";

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meta-dispatch"))
        .args(arguments)
        .env("META_DISPATCH__DATABASE__URL", "sqlite:/nowhere/meta-dispatch.db")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn example_tells_how_long_and_what_binds() {
    let started = std::time::Instant::now();
    let shown = simulate(&["--json", "simulate", "--profile", EXAMPLE]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(started.elapsed() < std::time::Duration::from_secs(30), "a campaign of an hour takes seconds");
    let report: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(report["recipients"], 100_000);
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(number("sent") + number("outside"), 100_000);
    assert_eq!(number("calls"), number("sent"), "windows are checked before the call");
    assert!(number("outside") >= 7_900, "{report}");
    let limits = report["lines"][0]["limits"].as_array().unwrap();
    assert!(limits.iter().any(|bound| bound["limit"] == "line_budget"), "{report}");
    let longest = report["lines"].as_array().unwrap().iter().map(|line| line["takes_seconds"].as_u64()).max();
    assert_eq!(longest.unwrap(), Some(number("takes_seconds")));

    let again = simulate(&["--json", "simulate", "--profile", EXAMPLE]);
    assert_eq!(again.stdout, shown.stdout);
}

#[test]
fn example_is_shown_as_two_tables() {
    let shown = simulate(&["simulate", "--profile", EXAMPLE]);
    let shown = text(&shown.stdout);
    for part in ["The campaign takes ", "outside their window.", "PER_SECOND", "WAITS_FOR", "Shop", "Studio"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn wrong_profile_names_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("campaign.toml");
    let line = "[[line]]\nname = \"Shop\"\nclass = \"messenger\"\nrecipients = 10\n";
    for (profile, named) in [
        (format!("{line}open_share = 2.0\n"), "open_share"),
        (format!("{line}recipient = 1\n"), "recipient"),
        (line.replace("messenger", "fax"), "fax"),
        (String::new(), "line"),
    ] {
        std::fs::write(&file, profile).unwrap();
        let refused = simulate(&["simulate", "--profile", file.to_str().unwrap()]);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(named), "{named}: {said}");
    }
    let missing = simulate(&["simulate", "--profile", "/nowhere.toml"]);
    assert!(text(&missing.stderr).contains("--profile"), "{}", text(&missing.stderr));
}
