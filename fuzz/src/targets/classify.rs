//! An answer of Graph. The first line is the HTTP status, then come headers, `name: value`, up to an empty line, then the
//! body.
//!
//! Properties: every result has a verdict, a bounded error and a bounded pause; a message is sent only by a 2xx with an
//! id; code 10 and 551 refuse the message whatever else the answer says; an answer without Graph's envelope ends no
//! message; a token in an error's text is in no text of the judgement.

use std::mem::discriminant;
use std::time::Duration;

use meta_dispatch::policy::classify::{
    CallResult, GraphAnswer, Judgement, PauseDemand, Subject, Verdict, classify, known_codes,
};
use serde_json::{Value, json};

use crate::shape::{note, number_of};
use crate::source::{Source, first_line};

pub const WORDS: &[&str] = &[
    "200\n",
    "400\n",
    "429\n",
    "500\n",
    "503\n",
    "302\n",
    "{\"message_id\":\"m_1\"}",
    "{\"error\":{\"code\":10}}",
    "\"code\":551",
    "\"code\":190",
    "\"error_subcode\":2018278",
    "\"error_subcode\":1545041",
    "\"type\":\"OAuthException\"",
    "\"is_transient\":true",
    "\"error_code\":",
    "\"error_msg\":",
    "\"error\":\"invalid_token\"",
    "for (;;);",
    "[{",
    "}]",
    "1357046",
    "613",
    "80006",
    "Retry-After: 3\n",
    "Retry-After: Fri, 31 Dec 9999 23:59:59 -2359\n",
    "Date: Mon, 01 Jan 1900 00:00:00 +2359\n",
    "X-Business-Use-Case-Usage: {\"7\":[{\"type\":\"messenger\",\"estimated_time_to_regain_access\":5}]}\n",
    "WWW-Authenticate: OAuth \"Facebook Platform\" \"invalid_token\" \"(#190) x\"\n",
    "EAAGm0PX4ZCpsBAKZCx9",
    "1e1",
    "\"10\"",
];

const TOKEN: &str = "EAAGm0PX4ZCpsBAKhUnTeR2";
const STATUSES: [u16; 12] = [100, 200, 204, 302, 400, 401, 403, 408, 429, 500, 503, 599];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub fn target(input: &[u8]) {
    let answer = answer(input);
    let subject = Subject { page_id: Some("7".to_owned()), ..Subject::default() };
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let judgement = classify(&CallResult::Answer(answer.clone()), &subject);
    is_bounded(&judgement);
    note((
        discriminant(&judgement.verdict),
        judgement.error.code.is_some(),
        judgement.error.subcode.is_some(),
    ));
    note((judgement.pause.as_ref().map(|pause| (pause.first, pause.named.is_some())), judgement.by_graph));
    if let Verdict::Sent { graph_id } = &judgement.verdict {
        assert!((200..300).contains(&answer.http_status) && may_be_graphs(&answer, &text));
        assert!(
            !graph_id.is_empty() && graph_id.chars().count() <= 500 && !graph_id.contains(char::is_control)
        );
    }
    if !may_be_graphs(&answer, &text) {
        let is_final =
            matches!(judgement.verdict, Verdict::Sent { .. } | Verdict::Refused | Verdict::Unlisted);
        assert!(!is_final && !judgement.by_graph, "{judgement:?}");
    }
    codes_that_end_a_message(input, &subject);
    tokens_are_in_no_text(input, &subject);
    for silent in silences(&text) {
        is_bounded(&classify(&silent, &subject));
    }
}

fn answer(input: &[u8]) -> GraphAnswer {
    let (status, mut rest) = first_line(input);
    let status = String::from_utf8_lossy(status).trim().parse().unwrap_or(400);
    let mut answer = GraphAnswer { http_status: status, ..GraphAnswer::default() };
    loop {
        let (line, behind) = first_line(rest);
        let text = String::from_utf8_lossy(line);
        let Some((name, value)) = text.split_once(": ").filter(|_| !line.starts_with(b"{")) else { break };
        let value = Some(value.to_owned());
        match name.to_ascii_lowercase().as_str() {
            "retry-after" => answer.retry_after = value,
            "date" => answer.date = value,
            "x-business-use-case-usage" => answer.business_usage = value,
            "www-authenticate" => answer.challenge = value,
            "content-encoding" => answer.is_unreadable = true,
            _ => break,
        }
        rest = behind;
    }
    let (line, behind) = first_line(rest);
    answer.body = if line.is_empty() { behind } else { rest }.to_vec();
    answer
}

/// Whether the answer may hold an id or an error, in a body or a header; an escape may hide a name.
fn may_be_graphs(answer: &GraphAnswer, body: &str) -> bool {
    ["error", "message_id", "\\u"].iter().any(|sign| body.contains(sign)) || answer.challenge.is_some()
}

fn is_bounded(judgement: &Judgement) {
    let Judgement { verdict, error, pause, .. } = judgement;
    assert!(error.message.chars().count() <= 500 && !error.message.contains(char::is_control));
    assert!(error.fbtrace_id.as_ref().is_none_or(|id| id.chars().count() <= 100));
    if let Verdict::RetryCounted { at_most: Some(most), .. } = verdict {
        assert!(*most > 1, "the first call is counted");
    }
    if let Some(PauseDemand { first, cap, named, reason, .. }) = pause {
        assert!(first <= cap && *cap <= 4 * Duration::from_secs(60 * 60));
        assert!(named.is_none_or(|named| !named.is_zero() && named <= DAY), "{named:?}");
        assert!(reason.chars().count() <= 160 && !reason.contains(char::is_control) && !reason.is_empty());
    }
}

fn codes_that_end_a_message(input: &[u8], subject: &Subject) {
    let mut source = Source::new(input);
    let code = source.one_of(&[10, 551]);
    let known: Vec<i64> = known_codes().flat_map(|(_, subcodes)| subcodes.iter().copied()).collect();
    let subcode = if source.is_odd() { source.one_of(&known) } else { source.number() };
    let http_status = if source.is_odd() { source.one_of(&STATUSES) } else { source.number() as u16 };
    let error = json!({
        "code": if source.is_odd() { json!(code) } else { json!(code.to_string()) },
        "error_subcode": subcode,
        "type": source.text(20),
        "is_transient": source.is_odd(),
        "message": source.text(200),
    });
    let mut body = json!({ "error": error });
    if source.is_odd() {
        body["message_id"] = Value::String(source.text(20));
    }
    let answer = GraphAnswer { http_status, body: body.to_string().into_bytes(), ..answer(input) };
    let judgement = classify(&CallResult::Answer(answer), subject);
    assert_eq!(judgement.verdict, Verdict::Refused, "HTTP {http_status}: {body}");
}

fn tokens_are_in_no_text(input: &[u8], subject: &Subject) {
    let (before, behind) = first_line(input);
    let (before, behind) = (String::from_utf8_lossy(before), String::from_utf8_lossy(behind));
    if before.contains(TOKEN) || behind.contains(TOKEN) {
        return;
    }
    let text = format!("{before}{TOKEN}{behind}");
    let number = number_of(input);
    let error =
        json!({ "code": number % 700, "type": "OAuthException", "message": text, "error_user_msg": text });
    let http_status = STATUSES[(number % 12) as usize];
    let body = json!({ "error": error }).to_string().into_bytes();
    let answered = GraphAnswer { http_status, body, ..GraphAnswer::default() };
    for result in silences(&text).into_iter().chain([CallResult::Answer(answered)]) {
        let Judgement { error, pause, .. } = classify(&result, subject);
        assert!(!error.message.contains(TOKEN), "{}", error.message);
        assert!(pause.is_none_or(|pause| !pause.reason.contains(TOKEN)));
    }
}

fn silences(reason: &str) -> [CallResult; 4] {
    let reason = reason.to_owned();
    [
        CallResult::NotSent { reason: reason.clone() },
        CallResult::NoFile { reason: reason.clone() },
        CallResult::Unsendable { reason: reason.clone() },
        CallResult::Cut { reason },
    ]
}
