//! Batches in pieces of any size: the parameters of each line, and its number.

use super::super::columns::IgnoredColumns;
use super::*;
use crate::text::Utf8Body;

/// Read a whole batch in pieces of that size. Return line numbers, and the texts of `mdata` or the refusals.
fn read(format: Format, body: &[u8], piece: usize) -> Result<Vec<(i64, String)>, Refused> {
    read_with(CsvOptions::default(), Charset::Utf8, format, body, piece)
}

fn read_with(
    options: CsvOptions,
    declared: Charset,
    format: Format,
    body: &[u8],
    piece: usize,
) -> Result<Vec<(i64, String)>, Refused> {
    let mut utf8 = Utf8Body::new(declared);
    let mut reader = Reader::new(format, options, Parameters::default());
    let mut out = Vec::new();
    let pieces = body.chunks(piece).map(Some).chain([None]);
    for piece in pieces {
        let piece = match piece {
            Some(piece) => utf8.feed(piece).into_owned(),
            None => utf8.finish(),
        };
        reader.set_charset(utf8.charset());
        let mut piece = piece.as_slice();
        while !piece.is_empty() {
            // Each piece starts a new list, as a batch does.
            let mut inputs = Vec::new();
            let taken = reader.feed(piece, &mut inputs)?;
            out.extend(inputs);
            piece = &piece[taken..];
        }
    }
    reader.finish(&mut out)?;
    let said = |given: Result<Parameters, Refused>| match given {
        Ok(parameters) => parameters.text("mdata").unwrap_or("-").to_owned(),
        Err(refused) => refused.code().to_string(),
    };
    Ok(out.into_iter().map(|input| (input.line, said(input.given))).collect())
}

/// Return the column name that the refusal of a header row repeats.
fn wrong_column(body: &str) -> String {
    let refused = read(Format::Csv, body.as_bytes(), 5).expect_err("a wrong column");
    refused.status().strip_prefix("Invalid parameter: ").expect("a name").to_owned()
}

fn lines(of: &[(i64, &str)]) -> Vec<(i64, String)> {
    of.iter().map(|(line, said)| (*line, (*said).to_owned())).collect()
}

#[test]
fn ndjson_is_read_by_line_in_any_pieces() {
    let body = "\u{feff}{\"mdata\":\"olá\"}\n\n  \r\n{\"mdata\":\"b\"}\r\nnonsense\n{\"mdata\":\"last\"}";
    for piece in [1, 2, 3, 7, 1_000] {
        let read = read(Format::Ndjson, body.as_bytes(), piece).expect("no columns to be wrong");
        assert_eq!(read, lines(&[(1, "olá"), (4, "b"), (5, "400"), (6, "last")]), "{piece}");
    }
    assert_eq!(read(Format::Ndjson, b"", 1), Ok(Vec::new()));
    assert_eq!(read(Format::Ndjson, b"{\"mdata\":\"\xe1\"}", 9), Ok(lines(&[(1, "400")])));
    assert_eq!(read(Format::Ndjson, b"{\"sid\":\"a-token\"}", 9), Ok(lines(&[(1, "229")])));
}

#[test]
fn too_long_line_is_refused_and_the_next_read() {
    let long = "x".repeat(1_000_000);
    let body = format!("{{\"mdata\":\"{long}\"}}\n{{\"mdata\":\"b\"}}\n");
    let too_long = lines(&[(1, "413"), (2, "b")]);
    assert_eq!(read(Format::Ndjson, body.as_bytes(), 5_000), Ok(too_long));
    let body = format!("dest,mdata\na,\"{long}\"\nb,b\n");
    assert_eq!(read(Format::Csv, body.as_bytes(), 5_000), Ok(lines(&[(2, "413"), (3, "b")])));
}

#[test]
fn csv_is_read_by_record_in_any_pieces() {
    let body = "\u{feff}dest,mdata\r\n\r\n1,\"a, \"\"b\"\"\r\nc\"\r\n2\r\n3,x,y\r\n4,last";
    for piece in [1, 2, 3, 7, 1_000] {
        let read = read(Format::Csv, body.as_bytes(), piece).expect("the columns are known");
        let expected = lines(&[(3, "a, \"b\"\r\nc"), (5, "400"), (6, "400"), (7, "last")]);
        assert_eq!(read, expected, "{piece}");
    }
    assert_eq!(read(Format::Csv, b"mdata\rone\rtwo", 4), Ok(lines(&[(2, "one"), (3, "two")])));
    assert_eq!(read(Format::Csv, b"mdata\nol\xe1\nol\xc3\xa1", 4), Ok(lines(&[(2, "olá"), (3, "olá")])));
    assert_eq!(read(Format::Csv, b"", 1), Ok(Vec::new()));
}

#[test]
fn unclosed_quote_refuses_its_record() {
    let body = "dest,mdata\n1,\"Hi Ana\n2,Hi Bob\n3,Hi Cid\n";
    for (line_end, piece) in [("\n", 1), ("\n", 5), ("\n", 1_000), ("\r", 5), ("\r\n", 5)] {
        let read = read(Format::Csv, body.replace('\n', line_end).as_bytes(), piece);
        assert_eq!(read, Ok(lines(&[(2, "400")])), "{line_end:?} {piece}");
    }
    assert_eq!(read(Format::Csv, b"dest,mdata\n1,5\" nail", 7), Ok(lines(&[(2, "5\" nail")])));
    assert_eq!(read(Format::Csv, b"dest,mdata\n1,\"a\"", 7), Ok(lines(&[(2, "a")])));
    assert_eq!(wrong_column("\"dest,mdata"), "header");
}

#[test]
fn text_behind_a_quote_refuses_only_its_record() {
    for (rows, expected) in [
        ("1,\"Hi Ana\n2,\"Hi Bob\"\n3,\"Hi Cid\"\n", &[(2, "400"), (4, "Hi Cid")][..]),
        ("\"1\",\"Hi Ana\n\"2\",\"Hi Bob\"\n3,Hi Cid", &[(2, "400"), (4, "Hi Cid")]),
        ("1,\"He said \"hi\" to me\"\n2,b\n", &[(2, "400"), (3, "b")]),
        ("1,\"a\" \n\n2,b\n", &[(2, "400"), (4, "b")]),
        ("1,\"a\"x,\"c\n2,b\n", &[(2, "400"), (3, "b")]),
        ("1,a\n2,\"b\"x", &[(2, "a"), (3, "400")]),
    ] {
        for line_end in ["\n", "\r", "\r\n"] {
            let body = format!("dest,mdata\n{rows}").replace('\n', line_end);
            for piece in [1, 2, 3, 7, 1_000] {
                let read = read(Format::Csv, body.as_bytes(), piece);
                assert_eq!(read, Ok(lines(expected)), "{body:?} in pieces of {piece}");
            }
        }
    }
    let long = format!("dest,mdata\n1,\"{}\"x\n2,b\n", "x".repeat(100_000));
    assert_eq!(read(Format::Csv, long.as_bytes(), 5_000), Ok(lines(&[(2, "400"), (3, "b")])));
    assert_eq!(wrong_column("\"dest\"x,mdata\n1,a\n"), "header");
}

#[test]
fn header_row_names_each_parameter_once() {
    assert_eq!(wrong_column("dest,colour\n1,2\n"), "colour");
    assert_eq!(wrong_column("dest,mdata,dest\n"), "dest");
    assert_eq!(wrong_column("dest,tsid\n"), "tsid");
    assert_eq!(wrong_column("dest|mdata\n"), "dest|mdata");
}

#[test]
fn separator_is_found_in_the_header() {
    for (separator, header) in
        [(";", "dest;mdata"), ("\t", "mdata\tdest"), (",", "\"dest\",\"mdata\""), (",", "mdata")]
    {
        let cells =
            if header == "mdata" { vec!["\"a,b;c\td\""] } else { vec!["\"a,b;c\td\"", "\"a,b;c\td\""] };
        let body = format!("{header}\n{}\n", cells.join(separator));
        for piece in [1, 3, 1_000] {
            let read = read(Format::Csv, body.as_bytes(), piece);
            assert_eq!(read, Ok(lines(&[(2, "a,b;c\td")])), "{body:?} in pieces of {piece}");
        }
    }
}

#[test]
fn separator_comes_from_its_line_or_option() {
    for line_end in ["\n", "\r", "\r\n"] {
        for first in ["sep=;", "\u{feff}\"sep=;\"", "\nSEP=;"] {
            let body = format!("{first}\ndest;mdata\n253;\"a;b\"\n").replace('\n', line_end);
            let line = if first.starts_with('\n') { 4 } else { 3 };
            for piece in [1, 2, 1_000] {
                let read = read(Format::Csv, body.as_bytes(), piece);
                assert_eq!(read, Ok(lines(&[(line, "a;b")])), "{body:?} in pieces of {piece}");
            }
        }
    }
    let options = CsvOptions { separator: Some(b';'), ..CsvOptions::default() };
    let body = b"mdata;cp_id\na,b;c\n";
    assert_eq!(read_with(options, Charset::Utf8, Format::Csv, body, 3), Ok(lines(&[(2, "a,b")])));
}

#[test]
fn empty_rows_are_skipped_and_counted() {
    let body = ",,\n\ndest,mdata,\n1,a,\n,,\n , ,\n\"\",\"\",\n2,b\n,,,\n";
    for piece in [1, 3, 1_000] {
        assert_eq!(read(Format::Csv, body.as_bytes(), piece), Ok(lines(&[(4, "a"), (8, "b")])), "{piece}");
    }
}

#[test]
fn repeated_header_is_refused_in_its_line() {
    let body = b"dest,mdata\n1,a\ndest,mdata\n2,b\n";
    assert_eq!(read(Format::Csv, body, 7), Ok(lines(&[(2, "a"), (3, "400"), (4, "b")])));
}

#[test]
fn ignored_columns_are_passed_over() {
    let options = CsvOptions { ignored: IgnoredColumns::All, ..CsvOptions::default() };
    let body = b"nome,mdata,idade\nAna,a,7\n,b,\n";
    assert_eq!(read_with(options, Charset::Utf8, Format::Csv, body, 4), Ok(lines(&[(2, "a"), (3, "b")])));
}

#[test]
fn cells_are_read_each_in_its_encoding() {
    let body = b"mdata,msg_id\nol\xe1,1\nol\xc3\xa1,Jos\xe9\n\x93x\x94 \x96 \x80,2\n";
    let expected = lines(&[(2, "ol\u{e1}"), (3, "ol\u{e1}"), (4, "\u{201c}x\u{201d} \u{2013} \u{20ac}")]);
    assert_eq!(read(Format::Csv, body, 4), Ok(expected));
    let declared =
        read_with(CsvOptions::default(), Charset::Windows1252, Format::Csv, b"mdata\n\xc3\xa1\n", 4);
    assert_eq!(declared, Ok(lines(&[(2, "\u{c3}\u{a1}")])));
}

#[test]
fn utf_16_is_read_from_its_mark() {
    for (format, text, line) in [
        (Format::Csv, "\u{feff}dest\tmdata\r\n1\tOl\u{e1} \u{1f600}\r\n", 2),
        (Format::Ndjson, "\u{feff}{\"mdata\":\"Ol\u{e1} \u{1f600}\"}\n", 1),
    ] {
        for unit in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
            let body: Vec<u8> = text.encode_utf16().flat_map(unit).collect();
            for piece in [1, 3, 1_000] {
                assert_eq!(read(format, &body, piece), Ok(lines(&[(line, "Ol\u{e1} \u{1f600}")])), "{piece}");
            }
        }
    }
}
