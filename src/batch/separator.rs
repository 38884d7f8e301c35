//! The separator of a CSV's cells: spreadsheets use the one of their country's settings. The separator is
//! found in the header, or in a first line `sep=;` as Excel writes and reads it.

/// Comma, semicolon and tab, in the order in which a tie is settled.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// The separators in words, for error texts.
pub const SEPARATORS_IN_WORDS: &str = "comma, semicolon or tab";

/// Return the separator that an option names.
pub fn separator_named(name: &str) -> Option<u8> {
    match name {
        "tab" | "\\t" => Some(b'\t'),
        "comma" => Some(b','),
        "semicolon" => Some(b';'),
        other => SEPARATORS.into_iter().find(|separator| other.as_bytes() == [*separator]),
    }
}

pub fn is_separator(byte: u8) -> bool {
    SEPARATORS.contains(&byte)
}

/// Return the separator that a first line `sep=;` names. Such a line is no header. Excel may add more
/// separators behind it.
pub fn separator_line(row: &[u8]) -> Option<u8> {
    // The second half of the previous line end may stand here.
    let row = row.trim_ascii_start();
    let end = row.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'))? + 1;
    let text = row[..end].strip_prefix(b"\"").unwrap_or(&row[..end]);
    let (name, rest) = text.split_at_checked(4)?;
    let rest = rest.strip_suffix(b"\"").unwrap_or(rest);
    let separator = *rest.first()?;
    let is_alone = rest.iter().all(|byte| *byte == separator);
    (name.eq_ignore_ascii_case(b"sep=") && is_alone && is_separator(separator)).then_some(separator)
}

/// Return the separator of a header row: the most frequent one outside quotes.
pub fn separator_of_header(row: &[u8]) -> u8 {
    let mut counts = [0; SEPARATORS.len()];
    let mut is_quoted = false;
    for byte in row {
        is_quoted ^= *byte == b'"';
        if !is_quoted && let Some(place) = SEPARATORS.iter().position(|separator| separator == byte) {
            counts[place] += 1;
        }
    }
    let most = counts.into_iter().max().unwrap_or_default();
    let place = counts.into_iter().position(|count| count == most).unwrap_or_default();
    SEPARATORS[place]
}

/// Return the cells of a whole record, as the server reads them.
pub fn cells(record: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut core = csv_core::ReaderBuilder::new().delimiter(separator).build();
    let (mut text, mut ends) = (vec![0; record.len() + 1], vec![0; record.len() + 2]);
    let (_, _, written, mut ended) = core.read_record(record, &mut text, &mut ends);
    // A record that has ended returns nothing more.
    let (result, _, _, more) = core.read_record(b"", &mut text[written..], &mut ends[ended..]);
    if result == csv_core::ReadRecordResult::Record {
        ended += more;
    }
    let starts = std::iter::once(&0).chain(&ends);
    starts.zip(&ends).take(ended).map(|(start, end)| text[*start..*end].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(b"dest,mdata\n", b',')]
    #[case(b"dest;mdata;msg_id\r\n", b';')]
    #[case(b"dest\tmdata\n", b'\t')]
    #[case(b"\"a;b;c\",dest\n", b',')]
    #[case(b"dest\n", b',')]
    #[case(b"a,b;c;d\n", b';')]
    fn header_shows_its_separator(#[case] row: &[u8], #[case] separator: u8) {
        assert_eq!(separator_of_header(row), separator);
    }

    #[rstest]
    #[case(b"sep=;\r\n", Some(b';'))]
    #[case(b"SEP=,\n", Some(b','))]
    #[case(b"sep=\t\n", Some(b'\t'))]
    #[case(b"\"sep=;\"\n", Some(b';'))]
    #[case(b"sep=;;;\n", Some(b';'))]
    #[case(b"\nsep=;\r", Some(b';'))]
    #[case(b"sep=\n", None)]
    #[case(b"sep=|\n", None)]
    #[case(b"sep=;x\n", None)]
    #[case(b"dest;mdata\n", None)]
    #[case(b"\n", None)]
    fn first_line_may_name_the_separator(#[case] row: &[u8], #[case] separator: Option<u8>) {
        assert_eq!(separator_line(row), separator);
    }

    #[rstest]
    #[case(";", Some(b';'))]
    #[case("tab", Some(b'\t'))]
    #[case("\t", Some(b'\t'))]
    #[case("|", None)]
    #[case("", None)]
    fn option_names_the_separator(#[case] name: &str, #[case] separator: Option<u8>) {
        assert_eq!(separator_named(name), separator);
    }

    #[rstest]
    #[case(b"253;\"a; \"\"b\"\"\"\n", &["253", "a; \"b\""])]
    #[case(b"253;\r\n", &["253", ""])]
    #[case(b";;\n", &["", "", ""])]
    #[case(b"253", &["253"])]
    fn record_is_cut_into_cells(#[case] record: &[u8], #[case] expected: &[&str]) {
        let texts: Vec<String> =
            cells(record, b';').iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
        assert_eq!(texts, expected);
    }
}
