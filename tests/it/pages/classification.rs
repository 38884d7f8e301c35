//! docs/graph-codes.md against the program: the page is the one that the program prints, and each of its rows has the
//! effect that it names.

use std::fs;
use std::time::Duration;

use meta_dispatch::policy::classify::{
    CallResult, GraphAnswer, Judgement, PauseTarget, Subject, Verdict, classify, codes_page,
};
use serde_json::json;

const PAGE: &str = "docs/graph-codes.md";

/// Stands for the codes and subcodes that no row names.
const OTHER: i64 = 777_777;

/// A row of the page.
struct Row {
    text: String,
    codes: String,
    subcodes: String,
    message: String,
    pause: String,
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(PAGE).expect("it is part of the repository");
    let lines = page.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<Row> = lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [codes, subcodes, _cause, message, pause, _remedy] = cells[..] else {
                panic!("{PAGE}: {line}")
            };
            Row {
                text: line.to_owned(),
                codes: codes.to_owned(),
                subcodes: subcodes.to_owned(),
                message: message.to_owned(),
                pause: pause.to_owned(),
            }
        })
        .collect();
    assert!(!rows.is_empty(), "{PAGE} has no table");
    rows
}

fn numbers(text: &str) -> impl Iterator<Item = i64> {
    text.split(|sign: char| !sign.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

impl Row {
    /// Codes that the row is about: the ends of a range, and for `any further` some that the page names elsewhere or not.
    fn example_codes(&self) -> Vec<i64> {
        if self.codes == "any further" {
            return vec![4, 100, 190, OTHER];
        }
        numbers(&self.codes).collect()
    }

    fn example_subcodes(&self) -> Vec<Option<i64>> {
        let has = |word: &str| self.subcodes.split([' ', ',']).any(|found| found == word);
        let mut subcodes: Vec<_> = numbers(&self.subcodes).map(Some).collect();
        subcodes.extend((has("none") || has("any")).then_some(None));
        subcodes.extend((has("other") || has("any")).then_some(Some(OTHER)));
        subcodes
    }

    /// Types and texts that the row demands beside the subcode.
    fn example_errors(&self) -> Vec<(&str, &str)> {
        let quoted: Vec<&str> = self.subcodes.split('`').skip(1).step_by(2).collect();
        match quoted[..] {
            [] => vec![("OAuthException", "no")],
            [kind] if self.subcodes.contains("of type") => vec![(kind, "no")],
            _ => quoted.iter().map(|text| ("OAuthException", *text)).collect(),
        }
    }

    fn verdict(&self) -> Verdict {
        let again = |at_most, minutes: Option<u64>| Verdict::RetryCounted {
            at_most,
            not_before: minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        };
        match self.message.as_str() {
            "`ERROR`" => Verdict::Refused,
            "`RETRY`" => Verdict::TryAgain,
            "`UNKNOWN`" => Verdict::Hold,
            "server failure" => Verdict::ServerFailed,
            "waits with its line" => Verdict::WaitForLine,
            "waits behind another message" => Verdict::Suspect,
            "again" => again(None, None),
            "again, two calls" => again(Some(2), None),
            "again, three calls" => again(Some(3), None),
            "again, six calls, 5 minutes apart or more" => again(Some(6), Some(5)),
            _ => panic!("{PAGE}: no verdict is known for the words of {}", self.text),
        }
    }

    /// The target and the first length in seconds: section 6 of the contract.
    fn pause(&self) -> Option<(PauseTarget, u64)> {
        match self.pause.as_str() {
            "" => None,
            "line rate" => Some((PauseTarget::Line, 1)),
            "use case" => Some((PauseTarget::Line, 15 * 60)),
            "app" => Some((PauseTarget::App, 5 * 60)),
            "line refused" => Some((PauseTarget::Line, 30 * 60)),
            _ => panic!("{PAGE}: no pause is known for the words of {}", self.text),
        }
    }
}

fn judge(code: i64, subcode: Option<i64>, (kind, text): (&str, &str)) -> Judgement {
    let error = json!({"code": code, "error_subcode": subcode, "type": kind, "message": text});
    let body = json!({ "error": error }).to_string().into_bytes();
    let answer = GraphAnswer { http_status: 400, body, ..GraphAnswer::default() };
    classify(&CallResult::Answer(answer), &Subject::default())
}

#[test]
fn rows_have_the_effect_that_they_name() {
    for row in rows() {
        for code in row.example_codes() {
            for subcode in row.example_subcodes() {
                for error in row.example_errors() {
                    let Judgement { verdict, pause, .. } = judge(code, subcode, error);
                    let pause = pause.map(|pause| (pause.target, pause.first.as_secs()));
                    let named = (row.verdict(), row.pause());
                    assert_eq!((verdict, pause), named, "{code}, {subcode:?}, {error:?}: {}", row.text);
                }
            }
        }
    }
}

#[test]
fn page_is_current() {
    let page = fs::read_to_string(PAGE).expect("it is part of the repository");
    assert!(page == codes_page(), "{PAGE} is out of date: `cargo run -- codes --page > {PAGE}`");
}
