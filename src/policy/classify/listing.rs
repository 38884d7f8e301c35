//! The table of codes as people and programs read it: for `meta-dispatch codes`, docs/graph-codes.md, and the remedy of a
//! pause.
//!
//! Never here: the decisions. Each row is made of the table that decides.

use std::fmt::Write;

use serde::Serialize;

use super::overrides::{CodeOverride, CodeOverrides};
use super::table::{self, CALLER_TEXTS, FETCH_TEXT, Meaning, OBJECT_TYPE, TableRow};

/// A row of the listing; the first one that fits decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CodeRow {
    /// A code, `A to B`, or `any further`.
    pub code: String,
    /// Subcodes, separated by commas; `any`, or `other, none`.
    pub subcode: String,
    pub cause: String,
    /// The fate of the message.
    pub message: String,
    /// The kind of pause; empty: none.
    pub pause: String,
    /// The remedy, for a person; empty: none is needed.
    pub remedy: String,
    /// Whether the row comes from the setting `graph.codes`.
    pub is_setting: bool,
}

impl CodeRow {
    fn of(code: String, subcode: String, cause: &str, meaning: Meaning, remedy: &str) -> CodeRow {
        CodeRow {
            code,
            subcode,
            cause: cause.to_owned(),
            message: message(meaning),
            pause: pause(meaning).to_owned(),
            remedy: remedy.to_owned(),
            is_setting: false,
        }
    }
}

/// Return the rows in the order in which they are tried: those of the settings, then the table's.
pub fn code_rows(overrides: &CodeOverrides) -> Vec<CodeRow> {
    let mut rows: Vec<CodeRow> = overrides.iter().filter_map(|entry| of_setting(entry, overrides)).collect();
    let table: Vec<TableRow> = table::rows().collect();
    for (at, row) in table.iter().enumerate() {
        if row.codes == Some(100..=100) && row.subcodes.is_empty() {
            rows.extend(by_text());
        }
        rows.push(CodeRow::of(codes(row), subcodes(row, &table[..at]), row.cause, row.meaning, row.remedy));
    }
    rows
}

fn of_setting(entry: CodeOverride, overrides: &CodeOverrides) -> Option<CodeRow> {
    let CodeOverride { code, subcode, word } = entry;
    let meaning = overrides.meaning(code, subcode)?;
    let subcodes = subcode.map_or_else(|| "other, none".to_owned(), |subcode| subcode.to_string());
    let remedy = table::remedy(code, subcode).unwrap_or_default();
    let cause = format!("setting `graph.codes`: {word}");
    Some(CodeRow { is_setting: true, ..CodeRow::of(code.to_string(), subcodes, &cause, meaning, remedy) })
}

/// The rows of code 100 that are told by type or text.
fn by_text() -> [CodeRow; 3] {
    let of = |subcodes: String, cause, meaning, remedy| {
        CodeRow::of("100".to_owned(), subcodes, cause, meaning, remedy)
    };
    let [proof, me] = CALLER_TEXTS;
    [
        of(
            format!("none, with `{proof}` or `{me}` in its text"),
            "the wrong kind of token, or the app's settings",
            Meaning::LineRefused,
            table::TOKEN,
        ),
        of(
            format!("none, with `{FETCH_TEXT}` in its text"),
            "Meta cannot fetch the URL",
            table::FETCH,
            table::MEDIA,
        ),
        of(
            format!("33 or none, of type `{OBJECT_TYPE}`"),
            "an object does not exist: `me`, or the recipient",
            Meaning::Suspect,
            table::RECIPIENT,
        ),
    ]
}

fn codes(row: &TableRow) -> String {
    match &row.codes {
        None => "any further".to_owned(),
        Some(codes) if codes.start() == codes.end() => codes.start().to_string(),
        Some(codes) => format!("{} to {}", codes.start(), codes.end()),
    }
}

/// Return the subcodes of a row, where `above` are the rows before it.
fn subcodes(row: &TableRow, above: &[TableRow]) -> String {
    if !row.subcodes.is_empty() {
        let subcodes: Vec<String> = row.subcodes.iter().map(i64::to_string).collect();
        return subcodes.join(", ");
    }
    let is_narrowed = above.iter().any(|above| match (&above.codes, &row.codes) {
        (Some(above), Some(codes)) => codes.contains(above.start()),
        _ => false,
    });
    if is_narrowed { "other, none".to_owned() } else { "any".to_owned() }
}

/// The words of docs/classification.md ("The message").
fn message(meaning: Meaning) -> String {
    let words = match meaning {
        Meaning::Final | Meaning::FinalForLine | Meaning::Unlisted => "`ERROR`",
        Meaning::LineRefused | Meaning::NotGraphs => "waits with its line",
        Meaning::Suspect => "waits behind another message",
        Meaning::RateLine | Meaning::RateUseCase | Meaning::RateApp => "`RETRY`",
        Meaning::Server => "server failure",
        Meaning::InFactSent => "`UNKNOWN`",
        Meaning::MaybeSent | Meaning::Unclear => "unknown outcome",
        Meaning::Again { at_most, not_before } => {
            let calls = at_most.map(|most| format!(", {} calls", number(most))).unwrap_or_default();
            let apart = not_before
                .map(|least| format!(", {} minutes apart or more", least.as_secs() / 60))
                .unwrap_or_default();
            return format!("again{calls}{apart}");
        }
    };
    words.to_owned()
}

fn number(count: u32) -> String {
    const WORDS: [&str; 7] = ["no", "one", "two", "three", "four", "five", "six"];
    WORDS.get(count as usize).map_or_else(|| count.to_string(), |word| (*word).to_owned())
}

/// The words of docs/classification.md ("The pause").
fn pause(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::RateLine => "line rate",
        Meaning::RateUseCase => "use case",
        Meaning::RateApp => "app",
        Meaning::LineRefused | Meaning::FinalForLine | Meaning::Suspect => "line refused",
        Meaning::NotGraphs => "not Graph's",
        Meaning::Final
        | Meaning::Unlisted
        | Meaning::Again { .. }
        | Meaning::Server
        | Meaning::InFactSent
        | Meaning::MaybeSent
        | Meaning::Unclear => "",
    }
}

/// Whether the table or the settings name the code and its subcode. A subcode that only the default of its code covers
/// is not named: Meta may have added it.
pub fn is_listed(code: i32, subcode: Option<i32>, overrides: &CodeOverrides) -> bool {
    let (code, subcode) = (i64::from(code), subcode.map(i64::from));
    overrides.names(code, subcode) || table::is_named(code, subcode)
}

/// Return the remedy for a pause, by the code in its reason (`Graph code 10/1893063`); `None` without a code, and for
/// one without a remedy.
pub fn remedy_of_pause(reason: &str) -> Option<&'static str> {
    let (_, rest) = reason.split_once("Graph code ")?;
    let end = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '/').unwrap_or(rest.len());
    let (code, subcode) = match rest[..end].split_once('/') {
        Some((code, subcode)) => (code.parse().ok()?, Some(subcode.parse().ok()?)),
        None => (rest[..end].parse().ok()?, None),
    };
    table::remedy(code, subcode)
}

/// Return docs/graph-codes.md.
pub fn codes_page() -> String {
    let mut page = String::from(HEAD);
    for CodeRow { code, subcode, cause, message, pause, remedy, .. } in code_rows(&CodeOverrides::default()) {
        // A text in memory takes what is written.
        let _ = writeln!(page, "| {code} | {subcode} | {cause} | {message} | {pause} | {remedy} |");
    }
    page
}

const HEAD: &str = "# Graph's codes

The table of codes as the program applies it: the first row that fits decides. The command
`meta-dispatch codes --page > docs/graph-codes.md` writes this page, and a test keeps it current.
`meta-dispatch codes` prints the same table with the entries of the setting `graph.codes`, which go first.

[classification.md](classification.md) explains the words of the columns *message* and *pause*, and codes that no row
names. A pause that only a person can end shows the remedy in `line list`, `check` and `GET /api/v2/lines`.

| code | subcode | cause | message | pause | remedy |
|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn settings_go_first() {
        let overrides: CodeOverrides = "10/1234567=pause-line, 4242=ambiguous".parse().expect("well formed");
        let rows = code_rows(&overrides);
        let first = (rows[0].code.as_str(), rows[0].subcode.as_str(), rows[0].message.as_str());
        assert_eq!(first, ("10", "1234567", "`ERROR`"));
        assert_eq!((rows[0].pause.as_str(), rows[0].is_setting), ("line refused", true));
        assert_eq!(rows[1].message, "unknown outcome");
        assert!(!rows[2].is_setting);
        assert_eq!(rows.len(), code_rows(&CodeOverrides::default()).len() + 2);
    }

    #[test]
    fn default_of_a_code_names_the_rest() {
        let rows = code_rows(&CodeOverrides::default());
        let subcodes = |code: &str| {
            let last = rows.iter().rfind(|row| row.code == code).expect("the code is in the table");
            last.subcode.clone()
        };
        assert_eq!(subcodes("10"), "other, none");
        assert_eq!(subcodes("200 to 299"), "other, none");
        assert_eq!(subcodes("17"), "any");
    }

    #[rstest]
    #[case::restricted("Graph: cannot send: Graph code 10/1893063: (#10) no", true)]
    #[case::token("Graph: cannot send: Graph code 190: ended", true)]
    #[case::unknown_subcode("Graph: cannot send: Graph code 190/4242", true)]
    #[case::unknown_code("Graph: cannot send: Graph code 77777", false)]
    #[case::no_code("Graph: cannot send: HTTP 403", false)]
    #[case::broken("Graph: cannot send: Graph code /7", false)]
    #[case::operator("maintenance", false)]
    fn pause_names_its_remedy(#[case] reason: &str, #[case] has_one: bool) {
        assert_eq!(remedy_of_pause(reason).is_some(), has_one, "{reason}");
    }

    #[test]
    fn subcode_of_a_default_is_not_listed() {
        let none = CodeOverrides::default();
        assert!(is_listed(190, Some(463), &none) && is_listed(190, None, &none));
        assert!(!is_listed(190, Some(999), &none) && !is_listed(77_777, None, &none));
        let overrides: CodeOverrides = "77777=refuse".parse().expect("well formed");
        assert!(is_listed(77_777, Some(3), &overrides));
    }

    #[test]
    fn cells_hold_no_separator() {
        for row in code_rows(&CodeOverrides::default()) {
            let cells = [&row.code, &row.subcode, &row.cause, &row.message, &row.pause, &row.remedy];
            assert!(cells.iter().all(|cell| !cell.contains('|') && !cell.contains('\n')), "{row:?}");
        }
    }
}
