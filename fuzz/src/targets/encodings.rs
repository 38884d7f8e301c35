//! The same parameters in every encoding that the program reads. Never here: the product's own reading of them.

use meta_dispatch::batch::Format;
use meta_dispatch::edge::Refused;
use meta_dispatch::fuzzing::{CsvOptions, Parameters, Reader};
use meta_dispatch::text::{is_blank, trimmed};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A name of the contract, perhaps with white space around it, and a text.
pub struct Pair {
    pub name: String,
    pub text: String,
}

impl Pair {
    fn is_token(&self) -> bool {
        matches!(trimmed(&self.name), "tsid" | "sid")
    }
}

pub fn form(pairs: &[Pair]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = pairs.iter().map(|pair| format!("{}={}", encoded(&pair.name), encoded(&pair.text)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Return a JSON object in which a name may stand several times. `numbers`: integers are written as such.
pub fn json(pairs: &[Pair], numbers: bool) -> String {
    let value = |text: &str| match numbers && is_json_integer(text) {
        true => text.to_owned(),
        false => quoted(text),
    };
    let fields = pairs.iter().map(|pair| format!("{}:{}", quoted(&pair.name), value(&pair.text)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("texts are always JSON")
}

fn is_json_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (digits == "0" || !digits.starts_with('0'))
}

/// Return a boundary and a body. None where a text holds the boundary, or begins with a byte order mark, which names the
/// encoding of its part and is no character of it.
pub fn multipart(pairs: &[Pair]) -> Option<(String, String)> {
    const BOUNDARY: &str = "fuzz-boundary-7f3a";
    let cannot_stand = |text: &str| text.contains(BOUNDARY) || text.starts_with('\u{feff}');
    if pairs.iter().any(|pair| cannot_stand(&pair.text)) {
        return None;
    }
    let part = |pair: &Pair| {
        let (name, text) = (trimmed(&pair.name), &pair.text);
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    };
    let parts: String = pairs.iter().map(part).collect();
    Some((BOUNDARY.to_owned(), format!("{parts}--{BOUNDARY}--\r\n")))
}

/// Return files of one line. None where a line has no form for the pairs: a token stands in none, and a row of blank cells
/// or of the columns' names is no message.
pub fn files(pairs: &[Pair]) -> Vec<(Format, String)> {
    if pairs.iter().any(Pair::is_token) {
        return Vec::new();
    }
    let mut files = vec![(Format::Ndjson, format!("{}\n", json(pairs, false)))];
    // A column stands once, with the last text of its name.
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for Pair { name, text } in pairs {
        let name = trimmed(name);
        columns.retain(|(column, _)| *column != name);
        columns.push((name, text.as_str()));
    }
    let is_blank_row = columns.iter().all(|(_, text)| is_blank(text));
    let is_header = columns.iter().all(|(name, text)| trimmed(text).to_lowercase() == *name);
    if !is_blank_row && !is_header {
        let cell = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let cells: Vec<String> = columns.iter().map(|(_, text)| cell(text)).collect();
        files.push((Format::Csv, format!("{}\n{}\n", names.join(","), cells.join(","))));
    }
    files
}

/// Return the parameters of each line of a file in UTF-8.
pub fn records_of(format: Format, file: &[u8]) -> Vec<Result<Parameters, Refused>> {
    let options = CsvOptions { separator: Some(b','), ..CsvOptions::default() };
    let mut reader = Reader::new(format, options, Parameters::default());
    let (mut lines, mut rest) = (Vec::new(), file);
    while !rest.is_empty() {
        let taken = reader.feed(rest, &mut lines).expect("the header is good");
        rest = &rest[taken..];
    }
    reader.finish(&mut lines).expect("the header is good");
    lines.into_iter().map(|line| line.given).collect()
}
