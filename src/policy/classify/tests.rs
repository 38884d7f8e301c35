use super::*;

fn answer(http_status: u16, body: &str) -> Judgement {
    classify(&CallResult::Answer(Answer { http_status, body: body.into(), business_usage: None }))
}

fn error(http_status: u16, code: i64, subcode: i64) -> Judgement {
    let subcode = if subcode == 0 { String::new() } else { format!(r#","error_subcode":{subcode}"#) };
    answer(
        http_status,
        &format!(
            r#"{{"error":{{"message":"text","type":"OAuthException","code":{code}{subcode},"fbtrace_id":"Axy"}}}}"#
        ),
    )
}

const COUNTED: Verdict = Verdict::RetryCounted { at_most: None, not_before: Duration::ZERO };

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stops {
    Nothing,
    /// The line, from this many seconds on.
    Line(u64),
    App(u64),
}
use Stops::{App, Line, Nothing};

fn stops(judgement: &Judgement) -> Stops {
    match &judgement.pause {
        None => Nothing,
        Some(pause) if pause.target == PauseTarget::App => App(pause.first.as_secs()),
        Some(pause) => Line(pause.first.as_secs()),
    }
}

#[test]
fn every_code_of_metas_tables_has_its_verdict_and_pause() {
    let fetch = |at_most| Verdict::RetryCounted { at_most: Some(at_most), not_before: Duration::ZERO };
    let later = Verdict::RetryCounted { at_most: None, not_before: Duration::from_secs(120) };
    for (code, subcode, verdict, stopped) in [
        (1, 0, Verdict::ServerFailed, Nothing),
        (1, 99, Verdict::ServerFailed, Nothing),
        (1, 1357046, Verdict::Hold, Nothing),
        (2, 0, Verdict::ServerFailed, Nothing),
        (2, 2018344, Verdict::Refused, Nothing),
        (3, 0, Verdict::WaitForLine, Line(1800)),
        (4, 0, Verdict::TryAgain, App(300)),
        (4, 2018022, Verdict::TryAgain, App(300)),
        (4, 2018354, Verdict::Refused, Nothing),
        (9, 2018352, Verdict::Refused, Nothing),
        (10, 0, Verdict::Refused, Line(1800)),
        (10, 2018278, Verdict::Refused, Nothing),
        (10, 2534022, Verdict::Refused, Nothing),
        (10, 2018065, Verdict::Refused, Nothing),
        (10, 2018108, Verdict::Refused, Nothing),
        (10, 2018336, Verdict::Refused, Nothing),
        (10, 1893015, Verdict::Refused, Nothing),
        (10, 1404170, Verdict::Refused, Nothing),
        (10, 2534077, Verdict::Refused, Line(1800)),
        (10, 1893063, Verdict::Refused, Line(1800)),
        (10, 999, Verdict::Refused, Line(1800)),
        (17, 0, Verdict::TryAgain, Line(1)),
        (32, 0, Verdict::TryAgain, Line(1)),
        (100, 0, Verdict::Refused, Nothing),
        (100, 33, Verdict::Refused, Nothing),
        (100, 2018001, Verdict::Refused, Nothing),
        (100, 2018008, fetch(3), Nothing),
        (100, 2018294, fetch(2), Nothing),
        (100, 2018047, Verdict::Refused, Nothing),
        (100, 2018109, Verdict::Refused, Nothing),
        (100, 1893061, Verdict::Refused, Nothing),
        (100, 2534013, Verdict::WaitForLine, Line(1800)),
        (100, 2534014, Verdict::Refused, Nothing),
        (100, 2534029, Verdict::WaitForLine, Line(1800)),
        (100, 2534037, Verdict::Refused, Nothing),
        (102, 0, Verdict::WaitForLine, Line(1800)),
        (190, 0, Verdict::WaitForLine, Line(1800)),
        (190, 463, Verdict::WaitForLine, Line(1800)),
        (190, 12345, Verdict::WaitForLine, Line(1800)),
        (200, 0, Verdict::WaitForLine, Line(1800)),
        (200, 1545041, Verdict::Refused, Nothing),
        (200, 2018028, Verdict::WaitForLine, Line(1800)),
        (200, 2018021, Verdict::Refused, Nothing),
        (200, 2534041, Verdict::WaitForLine, Line(1800)),
        (230, 0, Verdict::WaitForLine, Line(1800)),
        (299, 0, Verdict::WaitForLine, Line(1800)),
        (341, 0, Verdict::TryAgain, App(300)),
        (368, 0, Verdict::WaitForLine, Line(1800)),
        (389, 0, fetch(3), Nothing),
        (412, 0, Verdict::WaitForLine, Line(1800)),
        (506, 0, Verdict::Refused, Nothing),
        (508, 2534122, Verdict::Refused, Nothing),
        (546, 0, Verdict::Refused, Nothing),
        (551, 0, Verdict::Refused, Nothing),
        (551, 1545041, Verdict::Refused, Nothing),
        (613, 0, Verdict::TryAgain, Line(1)),
        (613, 2534040, Verdict::TryAgain, Line(1)),
        (613, 1996, Verdict::TryAgain, App(300)),
        (613, 2018338, Verdict::Refused, Nothing),
        (613, 1893016, Verdict::Refused, Nothing),
        (803, 0, Verdict::WaitForLine, Line(1800)),
        (900, 0, Verdict::WaitForLine, Line(1800)),
        (1200, 0, COUNTED, Nothing),
        (1200, 2018024, COUNTED, Nothing),
        (2022, 0, Verdict::WaitForLine, Line(1800)),
        (2500, 0, Verdict::WaitForLine, Line(1800)),
        (36103, 0, Verdict::WaitForLine, Line(1800)),
        (80001, 0, Verdict::TryAgain, Line(900)),
        (80002, 0, Verdict::TryAgain, Line(900)),
        (80006, 0, Verdict::TryAgain, Line(900)),
        (2018300, 0, later.clone(), Nothing),
        (9000001, 0, Verdict::Refused, Nothing),
        (77777, 0, Verdict::Refused, Nothing),
        (-1, 0, Verdict::Refused, Nothing),
    ] {
        let judgement = error(400, code, subcode);
        assert_eq!(judgement.verdict, verdict, "{code}/{subcode}");
        assert_eq!(stops(&judgement), stopped, "{code}/{subcode}");
    }
}

#[test]
fn a_code_10_and_a_551_are_refused_at_the_first_answer_whatever_the_http_status() {
    for status in [200, 400, 403, 429, 500, 503] {
        for (code, subcode) in
            [(10, 0), (10, 2018278), (10, 2534022), (10, 1893063), (551, 0), (551, 1545041)]
        {
            let judgement = error(status, code, subcode);
            assert_eq!(judgement.verdict, Verdict::Refused, "{status} {code}/{subcode}");
            assert_eq!(judgement.error.code, Some(code as i32));
            assert_eq!(judgement.error.fbtrace_id.as_deref(), Some("Axy"));
        }
    }
}

#[test]
fn only_a_readable_success_is_sent() {
    let sent = |body| matches!(answer(200, body).verdict, Verdict::Sent { .. });
    assert!(sent(r#"{"recipient_id":"1","message_id":"m_1"}"#));
    assert!(sent(r#"{"message_id":"m_1","error":null}"#));
    for body in [
        "",
        "null",
        "{}",
        "[]",
        "true",
        "<html>",
        r#"{"message_id":""}"#,
        r#"{"message_id":{}}"#,
        r#"{"message_id":7}"#,
        r#"{"message_id":"m_1""#,
        r#"{"recipient_id":"1"}"#,
        r#"{"error":[]}"#,
        r#"{"error":7,"message_id":"m"}"#,
    ] {
        assert_eq!(answer(200, body).verdict, Verdict::Ambiguous, "{body}");
    }
    assert_eq!(
        answer(200, r#"{"message_id":"m_1","error":{"code":10}}"#).verdict,
        Verdict::Refused,
        "an error in a 200 is judged as the error"
    );
    assert_eq!(answer(400, r#"{"message_id":"m_1"}"#).verdict, Verdict::Ambiguous);
}

#[test]
fn http_statuses_speak_only_where_no_code_does() {
    for (status, body, verdict) in [
        (500, "", Verdict::ServerFailed),
        (502, "<html>Bad Gateway</html>", Verdict::ServerFailed),
        (503, "{}", Verdict::ServerFailed),
        (408, "", Verdict::ServerFailed),
        (429, "", Verdict::TryAgain),
        (429, r#"{"error":{"message":"slow down","code":77777}}"#, Verdict::TryAgain),
        (301, "", Verdict::WaitForLine),
        (307, "", Verdict::WaitForLine),
        (403, "<html>", Verdict::Ambiguous),
        (404, "", Verdict::Ambiguous),
        (500, r#"{"error":{"message":"x","code":77777}}"#, Verdict::ServerFailed),
        (400, r#"{"error":"text only"}"#, Verdict::Refused),
        (401, r#"{"error":{"message":"x","type":"OAuthException"}}"#, Verdict::WaitForLine),
    ] {
        assert_eq!(answer(status, body).verdict, verdict, "{status} {body}");
    }
}

#[test]
fn the_text_speaks_only_for_a_code_100_without_a_subcode() {
    let text = |code: i32, text: &str, kind: &str| {
        answer(400, &format!(r#"{{"error":{{"message":"{text}","type":"{kind}","code":{code}}}}}"#)).verdict
    };
    let proof = "API calls from the server require an appsecret_proof argument";
    assert_eq!(text(100, proof, "GraphMethodException"), Verdict::WaitForLine);
    let me = "Unsupported post request. Object with ID 'me' does not exist";
    assert_eq!(text(100, me, "OAuthException"), Verdict::WaitForLine);
    assert_eq!(text(100, "No matching user found", "OAuthException"), Verdict::Refused);
    assert_eq!(text(551, proof, "GraphMethodException"), Verdict::Refused);
}

#[test]
fn codes_of_any_shape_are_read_and_never_panic() {
    assert_eq!(
        answer(400, r#"{"error":{"code":"10","error_subcode":"2018278"}}"#).error.subcode,
        Some(2018278)
    );
    for body in [
        r#"{"error":{"code":99999999999}}"#,
        r#"{"error":{"code":1e400}}"#,
        r#"{"error":{"code":[1]}}"#,
        r#"{"error":{"code":null,"message":{"a":1},"fbtrace_id":3}}"#,
        r#"{"error":{}}"#,
        "\u{0}",
        "{\"error\":{\"message\":\"\\ud800\"}}",
    ] {
        answer(400, body);
    }
    let deep = "[".repeat(100_000);
    assert_eq!(answer(200, &deep).verdict, Verdict::Ambiguous);
}

#[test]
fn a_time_named_in_the_usage_header_stands_instead_of_the_ladder() {
    let header = r#"{"1001":[{"type":"messenger","call_count":107,"estimated_time_to_regain_access":3}],"7":[{"estimated_time_to_regain_access":9},{"type":"pages"}]}"#;
    let named = |code: i32, header: &str| {
        let answer = Answer {
            http_status: 400,
            body: format!(r#"{{"error":{{"code":{code}}}}}"#).into(),
            business_usage: Some(header.into()),
        };
        classify(&CallResult::Answer(answer)).pause.expect("a pause").named
    };
    assert_eq!(named(80006, header), Some(Duration::from_secs(9 * 60)));
    assert_eq!(named(613, header), Some(Duration::from_secs(9 * 60)));
    assert_eq!(named(190, header), None, "a token does not heal with time");
    for nothing in ["", "{}", "[]", "nonsense", r#"{"1":[{"estimated_time_to_regain_access":0}]}"#] {
        assert_eq!(named(613, nothing), None);
    }
    let years = r#"{"1":[{"estimated_time_to_regain_access":99999999999}]}"#;
    assert_eq!(named(613, years), Some(Duration::from_secs(86_400)));
}

#[test]
fn what_was_not_written_is_tried_again_and_what_was_cut_is_ambiguous() {
    let not_sent = classify(&CallResult::NotSent { reason: "connection refused".into() });
    assert_eq!(not_sent.verdict, Verdict::TryAgain);
    assert_eq!((not_sent.error.http_status, not_sent.error.message.as_str()), (None, "connection refused"));
    let cut = classify(&CallResult::Cut { reason: "reset".into() });
    assert_eq!(cut.verdict, Verdict::Ambiguous);
}

#[test]
fn error_texts_are_bounded_printable_and_hold_no_token() {
    let body = format!(
        r#"{{"error":{{"code":190,"message":"token EAAGm0PX4ZCpsBAA\u0000\n{} is bad"}}}}"#,
        "x".repeat(10_000)
    );
    let judgement = answer(400, &body);
    let message = judgement.error.message;
    assert!(message.chars().count() <= 500 && !message.contains("EAAG") && !message.contains(['\0', '\n']));
    assert!(!judgement.pause.expect("a pause").reason.contains("EAAG"));
}
