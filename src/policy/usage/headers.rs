//! Reads the use of budgets from the headers of an answer.
//!
//! A header is believed as a whole or not at all: an entry with a number that is no percent is left out.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::policy::classify::{GraphAnswer, Subject};

/// Percents above are no use of a budget. Meta shows a little more than 100.
const MOST: f64 = 1_000.0;

/// The members of an entry that are percents of a budget.
const PERCENTS: [&str; 3] = ["call_count", "total_time", "total_cputime"];

/// The regain time that is believed: Meta's longest window.
const LONGEST_REGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The use of one budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The largest percent that the header tells.
    pub percent: f64,
    /// The time until calls are taken again; zero if the header names none.
    pub regain: Duration,
}

/// The use of the budgets of a call's line and app.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub line: Option<Reading>,
    pub app: Option<Reading>,
}

/// Read the headers of an answer to a call of this sender.
pub fn read(answer: &GraphAnswer, subject: &Subject) -> Usage {
    let business = answer.business_usage.as_deref().and_then(|header| of_business(header, subject));
    let page = answer.page_usage.as_deref().and_then(of_object);
    Usage { line: higher(business, page), app: answer.app_usage.as_deref().and_then(of_object) }
}

fn higher(one: Option<Reading>, other: Option<Reading>) -> Option<Reading> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(Reading { percent: one.percent.max(other.percent), regain: one.regain.max(other.regain) })
        }
        (one, other) => one.or(other),
    }
}

/// Read `X-Business-Use-Case-Usage` (`{"<id>":[{"type":"messenger",…}]}`): of the entries about this sender, those that
/// fit best. Several header lines come joined by commas.
fn of_business(header: &str, subject: &Subject) -> Option<Reading> {
    let objects: Vec<Map<String, Value>> = serde_json::from_str(&format!("[{header}]")).ok()?;
    let entries = objects.iter().flatten().flat_map(|(id, entries)| {
        let entries = match entries {
            Value::Array(entries) => entries.as_slice(),
            entry => std::slice::from_ref(entry),
        };
        entries.iter().filter_map(move |entry| Some((subject.rank(id, entry["type"].as_str()?)?, entry)))
    });
    let readings: Vec<(u8, Reading)> =
        entries.filter_map(|(rank, entry)| Some((rank, of_entry(entry)?))).collect();
    let best = readings.iter().map(|(rank, _)| *rank).min()?;
    readings
        .into_iter()
        .filter(|(rank, _)| *rank == best)
        .fold(None, |found, (_, reading)| higher(found, Some(reading)))
}

/// Read `X-App-Usage` or `X-Page-Usage`. Old interfaces quote with apostrophes.
fn of_object(header: &str) -> Option<Reading> {
    let entry: Value =
        serde_json::from_str(header).or_else(|_| serde_json::from_str(&header.replace('\'', "\""))).ok()?;
    of_entry(&entry)
}

fn of_entry(entry: &Value) -> Option<Reading> {
    let entry = entry.as_object()?;
    let mut percent: Option<f64> = None;
    for value in PERCENTS.iter().filter_map(|name| entry.get(*name)) {
        let told = number(value).filter(|number| (0.0..=MOST).contains(number))?;
        percent = Some(percent.map_or(told, |percent| percent.max(told)));
    }
    let minutes = entry.get("estimated_time_to_regain_access").and_then(number).unwrap_or(0.0);
    let regain = Duration::try_from_secs_f64(minutes * 60.0).unwrap_or_default().min(LONGEST_REGAIN);
    Some(Reading { percent: percent?, regain })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::channel::Class;

    fn messenger() -> Subject {
        let class = Some(Class::MESSENGER);
        Subject { class, page_id: Some("1".into()), instagram_account_id: Some("17".into()) }
    }

    fn instagram() -> Subject {
        Subject { class: Some(Class::INSTAGRAM), ..messenger() }
    }

    fn business(header: &str, subject: &Subject) -> Option<(f64, u64)> {
        let answer = GraphAnswer { business_usage: Some(header.into()), ..GraphAnswer::default() };
        read(&answer, subject).line.map(|reading| (reading.percent, reading.regain.as_secs() / 60))
    }

    #[rstest]
    #[case::the_largest_percent(
        r#"{"1":[{"type":"messenger","call_count":28,"total_cputime":31,"total_time":25,"estimated_time_to_regain_access":0}]}"#,
        Some((31.0, 0))
    )]
    #[case::a_regain_time(r#"{"1":[{"type":"messenger","call_count":101,"estimated_time_to_regain_access":7}]}"#, Some((101.0, 7)))]
    #[case::texts(r#"{"1":[{"type":"messenger","call_count":"85"}]}"#, Some((85.0, 0)))]
    #[case::the_type_pages(r#"{"1":[{"type":"pages","call_count":40}]}"#, Some((40.0, 0)))]
    #[case::without_a_list(r#"{"1":{"type":"messenger","call_count":4}}"#, Some((4.0, 0)))]
    #[case::several_lines(r#"{"2":[{"type":"messenger","call_count":90}]}, {"1":[{"type":"messenger","call_count":5}]}"#, Some((5.0, 0)))]
    #[case::another_page(
        r#"{"2":[{"type":"messenger","call_count":100,"estimated_time_to_regain_access":60}]}"#,
        None
    )]
    #[case::another_type(
        r#"{"1":[{"type":"ads_management","call_count":99,"estimated_time_to_regain_access":45}]}"#,
        None
    )]
    #[case::the_other_channel(r#"{"17":[{"type":"instagram","call_count":99}]}"#, None)]
    #[case::no_percent(r#"{"1":[{"type":"messenger"}]}"#, None)]
    #[case::a_negative_percent(r#"{"1":[{"type":"messenger","call_count":-7}]}"#, None)]
    #[case::an_absurd_percent(r#"{"1":[{"type":"messenger","call_count":5,"total_time":1e99}]}"#, None)]
    #[case::words(r#"{"1":[{"type":"messenger","call_count":"many"}]}"#, None)]
    #[case::cut(r#"{"1":[{"type":"messenger","call_c"#, None)]
    #[case::empty("", None)]
    fn business_header_of_a_messenger_line(#[case] header: &str, #[case] expected: Option<(f64, u64)>) {
        assert_eq!(business(header, &messenger()), expected);
    }

    #[rstest]
    #[case::its_account(r#"{"17":[{"type":"instagram","call_count":12}]}"#, Some((12.0, 0)))]
    #[case::its_account_before_its_page(
        r#"{"1":[{"type":"messenger","call_count":90}],"17":[{"type":"instagram","call_count":12}]}"#,
        Some((12.0, 0))
    )]
    #[case::its_page_alone(r#"{"1":[{"type":"messenger","call_count":90}]}"#, Some((90.0, 0)))]
    #[case::pages_is_not_its_type(r#"{"1":[{"type":"pages","call_count":90}]}"#, None)]
    fn business_header_of_an_instagram_line(#[case] header: &str, #[case] expected: Option<(f64, u64)>) {
        assert_eq!(business(header, &instagram()), expected);
    }

    #[rstest]
    #[case(r#"{"call_count":28,"total_time":25,"total_cputime":26}"#, Some(28.0))]
    #[case::apostrophes("{'call_count':85,'total_cputime':56,'total_time':60}", Some(85.0))]
    #[case::no_object("[28]", None)]
    #[case::cut(r#"{"call_count":2"#, None)]
    fn app_and_page_headers(#[case] header: &str, #[case] expected: Option<f64>) {
        let header = Some(header.to_owned());
        let answer = GraphAnswer { app_usage: header.clone(), page_usage: header, ..GraphAnswer::default() };
        let usage = read(&answer, &messenger());
        assert_eq!(usage.app.map(|reading| reading.percent), expected);
        assert_eq!(usage.line.map(|reading| reading.percent), expected);
    }

    #[test]
    fn page_header_and_business_header_bind_together() {
        let answer = GraphAnswer {
            business_usage: Some(r#"{"1":[{"type":"messenger","call_count":20}]}"#.into()),
            page_usage: Some(r#"{"call_count":60}"#.into()),
            ..GraphAnswer::default()
        };
        assert_eq!(read(&answer, &messenger()).line.map(|reading| reading.percent), Some(60.0));
    }
}
