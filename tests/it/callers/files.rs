//! Files as spreadsheets and other programs leave them, sent as batches.

use rstest::rstest;
use serde_json::json;

use super::{invalid, malformed};
use crate::support::pipeline::{Backend, Pipeline};

fn texts(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(dest, text)| ((*dest).to_owned(), (*text).to_owned())).collect()
}

#[rstest]
#[case::semicolons("dest;mdata\r\n253;\"a, b; c\"\r\n")]
#[case::tabs("mdata\tdest\n\"a, b; c\"\t253\n")]
#[case::commas("\"dest\",\"mdata\"\n253,\"a, b; c\"\n")]
#[case::separator_line("sep=;\r\ndest;mdata\r\n253;\"a, b; c\"\r\n")]
#[case::separator_line_of_commas("sep=,\r\ndest,mdata\r\n253,\"a, b; c\"\r\n")]
#[case::case_and_blanks(" Dest\u{a0},\u{200b}MDATA \n253,\"a, b; c\"\n")]
#[case::nameless_column("dest,mdata,\n253,\"a, b; c\",\n")]
#[case::empty_rows(",\ndest,mdata\n,\n253,\"a, b; c\"\n,\n , \n,,,\n")]
#[case::one_more_separator("dest;mdata\n253;\"a, b; c\";;\n")]
#[tokio::test(flavor = "multi_thread")]
async fn spreadsheet_is_read(#[case] file: &str) {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    for query in ["", "stream=1"] {
        let answered = pipeline.csv(query, file).await;
        assert_eq!((answered.status, answered.lines.len()), (200, 1), "{:?}", answered.lines);
    }
    assert_eq!(pipeline.texts().await, texts(&[("253", "a, b; c"), ("253", "a, b; c")]));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_rows_count_as_lines() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let file = "sep=;\n\ndest;mdata\n;\n253;a\n\ndest;mdata\n;;\n254;b\n";
    let answered = pipeline.csv("", file).await;
    assert_eq!(answered.codes(), [(5, 0), (7, 400), (9, 0)]);
    let detail = answered.lines[1]["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("Repeated header"), "{detail}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_column_is_refused_or_ignored() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let file = "Nome,dest,mdata,Idade\nAna,253,a,7\n";
    let refused = pipeline.csv("", file).await;
    assert_eq!(refused.refusal(&["`Nome`", "ignore_columns"]), invalid("Nome"));
    let refused = pipeline.csv("ignore_columns=nome", file).await;
    assert_eq!(refused.refusal(&["`Idade`"]), invalid("Idade"));
    for query in ["ignore_columns=1", "ignore_columns=idade,NOME"] {
        assert_eq!(pipeline.csv(query, file).await.codes(), [(2, 0)], "{query}");
    }
    let refused = pipeline.csv("", "dest,sendat,mdata\n253,,a\n").await;
    assert_eq!(refused.refusal(&["`send_at`"]), invalid("sendat"));
    let refused = pipeline.csv("", "dest|mdata\n253|a\n").await;
    assert_eq!(refused.refusal(&["semicolon", "tab"]), invalid("dest|mdata"));
    let refused = pipeline.csv("separator=%7C", "dest|mdata\n253|a\n").await;
    assert_eq!(refused.refusal(&["`|`"]), invalid("separator"));
    let refused = pipeline.csv("ignore_columns=1", "dest,mdata,tsid\n253,a,x\n").await;
    assert_eq!(refused.refusal(&["token"]), invalid("tsid"));
    assert_eq!(pipeline.rows().await.len(), 2);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_are_decoded_one_by_one_and_counted() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let file = b"dest,mdata\n1,\x93Oferta\x94 \x96 10 \x80\n2,Ol\xc3\xa1 \xf0\x9f\x98\x80\n3,ol\xe1\n4,Jo\xc3\xa3o \xf0\x9f\x98\n";
    let answered = pipeline.csv("", &file[..]).await;
    assert_eq!((answered.status, answered.not_utf8), (200, Some(3)));
    let expected = texts(&[("1", "“Oferta” – 10 €"), ("2", "Olá 😀"), ("3", "olá"), ("4", "João ")]);
    assert_eq!(pipeline.texts().await, expected);
    let path = format!("messages/batch?app_id={}", pipeline.messenger);
    let declared =
        pipeline.call(&path, "text/csv; charset=iso-8859-1", &b"dest,mdata\n5,\xc3\xa1\x80\n"[..]).await;
    assert_eq!((declared.status, declared.not_utf8), (200, Some(0)));
    assert_eq!(pipeline.newest().await.mdata, "Ã¡€");
    let refused = pipeline.call(&path, "text/csv; charset=klingon", "dest,mdata\n5,a\n").await;
    assert_eq!(refused.refusal(&["klingon", "utf-8"]), malformed());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn utf_16_is_read_from_its_mark() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let file = "\u{feff}dest\tmdata\r\n253\tOlá 😀\r\n";
    for unit in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
        let bytes: Vec<u8> = file.encode_utf16().flat_map(unit).collect();
        assert_eq!(pipeline.csv("", bytes).await.codes(), [(2, 0)]);
    }
    assert_eq!(pipeline.texts().await, texts(&[("253", "Olá 😀"), ("253", "Olá 😀")]));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_recipient_is_counted_or_refused() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let file = "dest,mdata,cp_id\n901,a,x\n902,b,x\n 901\u{a0},c,x\n901,d,y\n";
    let counted = pipeline.csv("batch_id=one", file).await;
    assert_eq!((counted.codes(), counted.duplicates), (vec![(2, 0), (3, 0), (4, 0), (5, 0)], Some(1)));
    let once = pipeline.csv("batch_id=two&once_per_dest=1", file).await;
    assert_eq!((once.codes(), once.duplicates), (vec![(2, 0), (3, 0), (4, 229), (5, 0)], Some(0)));
    assert_eq!(once.lines[2]["status"], "Invalid parameter: dest");
    assert!(once.lines[2]["detail"].as_str().is_some_and(|detail| detail.contains("once_per_dest")));
    let again = pipeline.csv("batch_id=two&once_per_dest=1", file).await;
    assert_eq!(again.lines, once.lines, "also when the batch is sent again");
    assert_eq!(pipeline.rows().await.len(), 7);
    pipeline.stop().await;
}

#[rstest]
#[case("text/csv", "")]
#[case("text/csv", "dest,mdata\n")]
#[case("text/csv", "dest;mdata")]
#[case("text/csv", "dest,mdata\n,\n\n,\n")]
#[case("application/x-ndjson", "")]
#[case("application/x-ndjson", "\n \n")]
#[tokio::test(flavor = "multi_thread")]
async fn batch_without_a_message_is_refused(#[case] content_type: &str, #[case] body: &str) {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let path = format!("messages/batch?app_id={}", pipeline.messenger);
    let refused = pipeline.call(&path, content_type, body).await;
    assert_eq!(refused.refusal(&["no message in it"]), malformed());
    if body.is_empty() {
        let refused = pipeline.call(&format!("{path}&stream=1"), content_type, body).await;
        assert_eq!(refused.refusal(&["no message in it"]), malformed());
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_line_says_why() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let line = pipeline.messenger.0;
    let ndjson = [
        json!({"app_id": line, "dest": "", "mdata": "secret"}).to_string(),
        "{nonsense".to_owned(),
        json!({"app_id": line, "dest": "253", "mdata": "hi", "sendat": "tomorrow"}).to_string(),
    ];
    let answered = pipeline.call("messages/batch", "application/x-ndjson", ndjson.join("\n")).await;
    assert_eq!(answered.codes(), [(1, 220), (2, 400), (3, 0)]);
    let details: Vec<&str> =
        answered.lines.iter().map(|line| line["detail"].as_str().unwrap_or_default()).collect();
    assert!(
        details[0].contains("`dest`") && details[1].contains("line 1") && details[2].contains("`send_at`"),
        "{details:?}"
    );
    let csv = pipeline.csv("", "dest,mdata\n1,a,b\n2,\"a\" b\n").await;
    let details: Vec<&str> =
        csv.lines.iter().map(|line| line["detail"].as_str().unwrap_or_default()).collect();
    assert!(details[0].contains("3 cells") && details[1].contains("quote"), "{details:?}");
    pipeline.stop().await;
}
