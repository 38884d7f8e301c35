//! The query of a list, and a cursor that was not made by the program.
//!
//! Properties: filters that are accepted are in their ranges, and their times can be written; a cursor reads as the place
//! that it was made of; a text is refused as a cursor, or is the cursor of the place that it reads as.

use meta_dispatch::domain::RowId;
use meta_dispatch::fuzzing::{CampaignsRequest, PageRequest, campaigns_cursor, cursor};
use meta_dispatch::store::{CampaignPlace, MessageFilter};
use meta_dispatch::text::{timestamp, trimmed, without_c1};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::shape::note;
use crate::source::Source;

pub const WORDS: &[&str] = &[
    "status=",
    "OK,ERROR",
    "&app_id=7",
    "&v8l_id=7",
    "&cp_id=",
    "&msg_id=",
    "&dest=",
    "&error_code=",
    "&error_kind=expired",
    "&since=",
    "&until=",
    "&after=",
    "&limit=",
    "&state=finished",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00%2B23:59",
    "2026-11-25T12:00:00.999999999Z",
    "1764072000",
    "253402300800",
    "AQAAAAAAAAAH",
    "AQAAAAAAAAAAAAZEagTrEAB4bWFz",
    "=",
    "%00",
];

pub fn target(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match PageRequest::read(&text) {
        Ok(page) => {
            note((page.filter.index() as u8, page.filter.since.is_some()));
            assert!((1..=1_000).contains(&page.limit) && page.before.0 > 0);
            is_in_range(&page.filter);
        }
        Err(refused) => {
            note(refused.status());
            assert_eq!(refused.code(), 229, "{refused:?}");
        }
    }
    match CampaignsRequest::read(&text) {
        Ok(campaigns) => assert!((1..=1_000).contains(&campaigns.limit)),
        Err(refused) => assert_eq!(refused.code(), 229, "{refused:?}"),
    }
    text_is_no_cursor_or_its_own(&text);
    cursors_come_back(input);
}

fn is_in_range(filter: &MessageFilter) {
    let is_text =
        |text: &String, most: usize| !text.contains('\0') && (1..=most).contains(&text.chars().count());
    assert!(filter.line.is_none_or(|line| line.0 > 0));
    assert!(filter.cp_id.as_ref().is_none_or(|cp_id| is_text(cp_id, 128)));
    assert!(filter.dest.as_ref().is_none_or(|dest| is_text(dest, 128)));
    assert!(filter.msg_ids.len() <= 100 && filter.msg_ids.iter().all(|msg_id| is_text(msg_id, 255)));
    for time in [filter.since, filter.until].into_iter().flatten() {
        let written = timestamp(time);
        assert!(OffsetDateTime::parse(&written, &Rfc3339).is_ok(), "{written}");
    }
}

fn text_is_no_cursor_or_its_own(text: &str) {
    let query = format!("after={}", utf8_percent_encode(text, NON_ALPHANUMERIC));
    // A query gives no C1 control character, and no white space around a value.
    let given = without_c1(text);
    let given = trimmed(&given);
    match PageRequest::read(&query) {
        Ok(page) if given.is_empty() => assert_eq!(page.before, RowId(i64::MAX)),
        Ok(page) => assert_eq!(cursor(page.before), given),
        Err(refused) => assert_eq!(refused.code(), 229),
    }
    match CampaignsRequest::read(&query) {
        Ok(campaigns) => {
            let again = campaigns.filter.before.as_ref().map(campaigns_cursor).unwrap_or_default();
            note(again.is_empty());
            assert_eq!(again, given);
        }
        Err(refused) => assert_eq!(refused.code(), 229),
    }
}

fn cursors_come_back(input: &[u8]) {
    let mut source = Source::new(input);
    let id = RowId(source.number().saturating_abs().max(1));
    let text = cursor(id);
    is_url_safe(&text);
    let page = PageRequest::read(&format!("after={text}")).expect("a cursor of the program");
    assert_eq!(page.before, id);
    let nanoseconds = i128::from(source.number()) * 1_000;
    let Ok(first_at) = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds) else { return };
    if !(1..=9_999).contains(&first_at.year()) {
        return;
    }
    let place = CampaignPlace { first_at, cp_id: String::from_utf8_lossy(source.rest()).replace('\0', "") };
    let text = campaigns_cursor(&place);
    is_url_safe(&text);
    let campaigns = CampaignsRequest::read(&format!("after={text}")).expect("a cursor of the program");
    assert_eq!(campaigns.filter.before, Some(place));
}

fn is_url_safe(cursor: &str) {
    assert!(
        cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')),
        "{cursor}"
    );
}
