//! docs/classification.md against the program: each row of its table by code has the effect that it names, and the table
//! has the codes of the program's table and no others.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use meta_dispatch::policy::classify::{
    CallResult, GraphAnswer, Judgement, PauseTarget, Subject, Verdict, classify, known_codes,
};
use serde_json::json;

const PAGE: &str = "docs/classification.md";

/// Stands for the codes and subcodes that no row names.
const OTHER: i64 = 777_777;

/// A row of the page.
struct Row {
    text: String,
    codes: Vec<String>,
    subcodes: String,
    message: String,
    pause: String,
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(PAGE).expect("it is part of the repository");
    let (_, table) = page.split_once("## By code\n").expect("the page has the section");
    let lines = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut rows: Vec<Row> = Vec::new();
    for line in lines.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [codes, subcodes, _cause, message, pause] = cells[..] else { panic!("{PAGE}: {line}") };
        let message = match (message, rows.last()) {
            ("the same", Some(above)) => above.message.clone(),
            (message, _) => message.to_owned(),
        };
        rows.push(Row {
            text: line.to_owned(),
            codes: codes.split(", ").map(str::to_owned).collect(),
            subcodes: subcodes.to_owned(),
            message,
            pause: pause.to_owned(),
        });
    }
    assert!(!rows.is_empty(), "{PAGE} has no table by code");
    rows
}

fn numbers(text: &str) -> impl Iterator<Item = i64> {
    text.split(|sign: char| !sign.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

impl Row {
    /// Codes that the row is about: the ends of a range, and for `any further` some that the page names elsewhere or not.
    fn example_codes(&self) -> Vec<i64> {
        if self.codes == ["any further"] {
            return vec![4, 100, 190, OTHER];
        }
        self.codes.iter().flat_map(|codes| numbers(codes)).collect()
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
fn rows_are_those_of_the_program() {
    let mut page = BTreeSet::new();
    // A row with a type or a text belongs to no row of the program's table, but to its special case of code 100.
    for row in rows().iter().filter(|row| !row.subcodes.contains('`')) {
        for code in &row.codes {
            let subcodes = row.example_subcodes().into_iter().filter(|subcode| *subcode != Some(OTHER));
            page.extend(subcodes.map(|subcode| (code.clone(), subcode)));
        }
    }
    let mut program = BTreeSet::new();
    for (codes, subcodes) in known_codes() {
        let code = match codes {
            None => "any further".to_owned(),
            Some(codes) if codes.start() == codes.end() => codes.start().to_string(),
            Some(codes) => format!("{} to {}", codes.start(), codes.end()),
        };
        program.extend(subcodes.iter().map(|subcode| (code.clone(), Some(*subcode))));
        program.extend(subcodes.is_empty().then_some((code, None)));
    }
    let missing: Vec<_> = program.difference(&page).collect();
    let foreign: Vec<_> = page.difference(&program).collect();
    assert!(missing.is_empty() && foreign.is_empty(), "{PAGE} lacks {missing:?}, and invents {foreign:?}");
}
