//! The query parameters of a list: filters, cursor, limit. Blank ones count as missing, and the last of a
//! repeated name counts. A parameter out of its range is refused by its name.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::progress::{FINISHED, STATES};
use crate::domain::{
    CampaignState, ErrorKind, LineId, MAX_BATCH_ID_CHARS, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS,
    RowId, Status,
};
use crate::edge::{Refusal, Refused};
use crate::store::{CampaignFilter, CampaignPlace, MessageFilter};
use crate::text::{Charset, form_pairs, trimmed};

pub const DEFAULT_LIMIT: u32 = 100;
pub const LARGEST_LIMIT: u32 = 1_000;
/// The first byte of a cursor; a cursor of another version is refused.
const CURSOR_VERSION: u8 = 1;
/// References that one list may look for.
pub const MOST_MSG_IDS: usize = 100;

/// The filters of a list and of an export; `v8l_id` is the alias of the send endpoints.
macro_rules! filters_and {
    ($($own:literal),+) => {
        &[
            "status", "app_id", "v8l_id", "cp_id", "msg_id", "dest", "error_code", "error_kind", "since", "until",
            $($own),+
        ]
    };
}
/// The query parameters of a list.
pub const OF_LIST: &[&str] = filters_and!("after", "limit");
/// The query parameters of an export.
pub const OF_EXPORT: &[&str] = filters_and!("format");
/// The query parameters of a cancelling call: filters, at least one.
pub const OF_CANCEL: &[&str] = &["app_id", "v8l_id", "cp_id", "msg_id", "dest", "batch_id"];

/// The query parameters of a list of campaigns.
pub const OF_CAMPAIGNS: &[&str] = &["state", "after", "limit"];

/// A requested page of campaigns.
#[derive(Debug)]
pub struct CampaignsRequest {
    pub filter: CampaignFilter,
    pub limit: u32,
}

impl CampaignsRequest {
    pub fn read(query: &str) -> Result<CampaignsRequest, Refused> {
        let given = Given::of(query);
        let running = CampaignState::Running;
        let (state, is_open) = match given.value("state") {
            None => (None, None),
            Some(FINISHED) => (Some(running), Some(false)),
            Some(word) => match word.parse() {
                Ok(CampaignState::Running) => (Some(running), Some(true)),
                Ok(state) => (Some(state), None),
                Err(_) => return Err(invalid("state", one_of(STATES.iter()))),
            },
        };
        let before = match given.value("after") {
            None => None,
            Some(cursor) => {
                let place = place_of(cursor);
                Some(place.ok_or_else(|| {
                    invalid("after", "is no cursor: give `next` of the page before, unchanged")
                })?)
            }
        };
        Ok(CampaignsRequest { filter: CampaignFilter { state, is_open, before }, limit: given.limit()? })
    }
}

/// Return the cursor that goes on after this campaign.
pub fn campaigns_cursor(place: &CampaignPlace) -> String {
    let mut bytes = vec![CURSOR_VERSION];
    bytes.extend((place.first_at.unix_timestamp_nanos() / 1_000).to_be_bytes());
    bytes.extend(place.cp_id.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn place_of(cursor: &str) -> Option<CampaignPlace> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (microseconds, cp_id) = rest.split_first_chunk::<16>()?;
    let nanoseconds = i128::from_be_bytes(*microseconds).checked_mul(1_000)?;
    let first_at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?;
    let cp_id = String::from_utf8(cp_id.to_vec()).ok()?;
    let is_place =
        *version == CURSOR_VERSION && (1..=9_999).contains(&first_at.year()) && !cp_id.contains('\0');
    is_place.then_some(CampaignPlace { first_at, cp_id })
}

/// A requested page.
#[derive(Debug)]
pub struct PageRequest {
    pub filter: MessageFilter,
    /// Rows below this id.
    pub before: RowId,
    pub limit: u32,
}

impl PageRequest {
    pub fn read(query: &str) -> Result<PageRequest, Refused> {
        let given = Given::of(query);
        let filter = given.filter()?;
        let before = match given.value("after") {
            None => RowId(i64::MAX),
            Some(cursor) => from_cursor(cursor)
                .ok_or_else(|| invalid("after", "is no cursor: give `next` of the page before, unchanged"))?,
        };
        Ok(PageRequest { filter, before, limit: given.limit()? })
    }
}

/// Return the filter of a cancelling call: the waiting messages that match every filter given.
pub fn cancelled_filter(query: &str) -> Result<MessageFilter, Refused> {
    let given = Given::of(query);
    let batch_id = match given.value("batch_id") {
        Some(id) if id.len() > MAX_BATCH_ID_CHARS || !id.bytes().all(|byte| byte.is_ascii_graphic()) => {
            return Err(invalid("batch_id", "is the value of the header `Batch-Id` of a batch's answer"));
        }
        id => id.map(str::to_owned),
    };
    let filter = MessageFilter {
        line: given.line()?,
        cp_id: given.text("cp_id", MAX_CP_ID_CHARS)?,
        msg_ids: given.msg_ids()?,
        dest: given.text("dest", MAX_DEST_CHARS)?,
        batch_id,
        ..MessageFilter::default()
    };
    if filter == MessageFilter::default() {
        return Err(no_filter());
    }
    Ok(filter)
}

/// Return 229, for a cancelling call that would mean every message.
pub fn no_filter() -> Refused {
    let detail =
        "Name at least one of `app_id`, `cp_id`, `msg_id`, `dest` and `batch_id`: nothing was cancelled";
    Refused::because(Refusal::InvalidParameter("app_id"), detail)
}

/// The parameters of a query, of which blank ones are missing.
pub struct Given(Vec<(String, String)>);

impl Given {
    pub fn of(query: &str) -> Given {
        Given(form_pairs(query.as_bytes(), Charset::Utf8).map(|(name, value)| (name, value.text)).collect())
    }

    /// Return the last value of the name.
    pub fn value(&self, name: &str) -> Option<&str> {
        let of_name = self.0.iter().rev().find(|(given, _)| trimmed(given) == name);
        of_name.map(|(_, value)| trimmed(value)).filter(|value| !value.is_empty())
    }

    pub fn limit(&self) -> Result<u32, Refused> {
        match self.value("limit").map(str::parse) {
            None => Ok(DEFAULT_LIMIT),
            Some(Ok(limit)) if (1..=LARGEST_LIMIT).contains(&limit) => Ok(limit),
            Some(_) => Err(invalid_limit()),
        }
    }

    /// Return the filters of a list or of an export.
    pub fn filter(&self) -> Result<MessageFilter, Refused> {
        let error_code = self.value("error_code").map(str::parse::<i32>).transpose();
        let error_kind = self.value("error_kind").map(str::parse::<ErrorKind>).transpose();
        Ok(MessageFilter {
            statuses: self.statuses()?,
            line: self.line()?,
            cp_id: self.text("cp_id", MAX_CP_ID_CHARS)?,
            msg_ids: self.msg_ids()?,
            dest: self.text("dest", MAX_DEST_CHARS)?,
            batch_id: None,
            error_code: error_code.map_err(|_| invalid("error_code", "is a code of Graph, in digits"))?,
            error_kind: error_kind.map_err(|_| invalid("error_kind", one_of(ErrorKind::ALL.iter())))?,
            since: self.time("since")?,
            until: self.time("until")?,
        })
    }

    fn text(&self, name: &'static str, longest: usize) -> Result<Option<String>, Refused> {
        match self.value(name) {
            Some(text) if !fits(text, longest) => Err(too_long(name, longest)),
            text => Ok(text.map(str::to_owned)),
        }
    }

    /// Return the values between commas, without blank ones.
    fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let values = self.value(name).unwrap_or_default().split(',');
        values.map(trimmed).filter(|value| !value.is_empty())
    }

    fn statuses(&self) -> Result<Vec<Status>, Refused> {
        let statuses = self.list("status").map(str::parse::<Status>).collect::<Result<Vec<_>, _>>();
        statuses.map_err(|_| invalid("status", one_of(Status::ALL.iter())))
    }

    fn msg_ids(&self) -> Result<Vec<String>, Refused> {
        let msg_ids: Vec<String> = self.list("msg_id").map(str::to_owned).collect();
        if msg_ids.len() > MOST_MSG_IDS {
            return Err(invalid(
                "msg_id",
                format!("names more than {MOST_MSG_IDS} references: ask several times"),
            ));
        }
        match msg_ids.iter().all(|msg_id| fits(msg_id, MAX_MSG_ID_CHARS)) {
            true => Ok(msg_ids),
            false => Err(too_long("msg_id", MAX_MSG_ID_CHARS)),
        }
    }

    /// Return the line. The alias counts too: ignored, it would show the messages of all lines.
    fn line(&self) -> Result<Option<LineId>, Refused> {
        match self.value("app_id").or_else(|| self.value("v8l_id")).map(str::parse::<i64>) {
            None => Ok(None),
            Some(Ok(id)) if id > 0 => Ok(Some(LineId(id))),
            Some(_) => Err(invalid("app_id", "is a line's id in digits")),
        }
    }

    fn time(&self, name: &'static str) -> Result<Option<OffsetDateTime>, Refused> {
        let Some(text) = self.value(name) else { return Ok(None) };
        let seconds = text.parse().ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        let time = seconds.or_else(|| OffsetDateTime::parse(text, &Rfc3339).ok());
        // The store compares in UTC, and an offset may lead out of the calendar.
        let time = time.and_then(|at| at.checked_to_offset(UtcOffset::UTC));
        match time.filter(|at| (1..=9_999).contains(&at.year())) {
            Some(at) => Ok(Some(at)),
            None => Err(invalid(name, "is a time in RFC 3339, or in Unix seconds")),
        }
    }
}

fn fits(text: &str, longest: usize) -> bool {
    !text.contains('\0') && text.chars().count() <= longest
}

pub fn invalid(name: &'static str, what: impl std::fmt::Display) -> Refused {
    Refused::parameter(name, format!("`{name}` {what}"))
}

fn too_long(name: &'static str, longest: usize) -> Refused {
    invalid(name, format!("is a text of at most {longest} characters, without NUL"))
}

fn one_of(words: impl Iterator<Item = impl std::fmt::Display>) -> String {
    format!("is none of {}", words.map(|word| word.to_string()).collect::<Vec<_>>().join(", "))
}

/// Return 229 for `limit`.
pub fn invalid_limit() -> Refused {
    invalid("limit", format!("is a number from 1 to {LARGEST_LIMIT}: use `after` for further pages"))
}

/// Return the cursor that goes on after this row. Opaque: its form may change with its version.
pub fn cursor(last: RowId) -> String {
    let mut bytes = vec![CURSOR_VERSION];
    bytes.extend(last.0.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn from_cursor(cursor: &str) -> Option<RowId> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (version, id) = bytes.split_first()?;
    let id = i64::from_be_bytes(id.try_into().ok()?);
    (*version == CURSOR_VERSION && id > 0).then_some(RowId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn filters_are_read_and_blank_ones_are_missing() {
        let page =
            PageRequest::read("status=OK&app_id=7&cp_id=&msg_id=a+b&dest=%C3%A1&limit=5").expect("in order");
        assert_eq!((page.filter.statuses, page.filter.line), (vec![Status::Ok], Some(LineId(7))));
        assert_eq!(page.filter.cp_id, None);
        assert_eq!(page.filter.msg_ids, ["a b"]);
        assert_eq!(page.filter.dest.as_deref(), Some("á"));
        assert_eq!((page.limit, page.before), (5, RowId(i64::MAX)));
        assert_eq!(PageRequest::read("").expect("in order").limit, 100);
    }

    #[test]
    fn filters_are_trimmed_as_ingest_trims() {
        let page = PageRequest::read(
            "cp_id=+xmas%C2%A0&msg_id=%EF%BB%BFA-1+&dest=%09253&app_id=+7&limit=5+&status=OK+",
        )
        .expect("in order");
        let MessageFilter { cp_id, msg_ids, dest, line, statuses, .. } = page.filter;
        assert_eq!((cp_id.as_deref(), dest.as_deref()), (Some("xmas"), Some("253")));
        assert_eq!(msg_ids, ["A-1"]);
        assert_eq!((line, statuses, page.limit), (Some(LineId(7)), vec![Status::Ok], 5));
        assert_eq!(
            PageRequest::read("cp_id=ver%E3o").expect("in order").filter.cp_id.as_deref(),
            Some("verão")
        );
    }

    #[rstest]
    #[case("status=SENT", "status")]
    #[case("status=ok", "status")]
    #[case("app_id=0", "app_id")]
    #[case("app_id=x", "app_id")]
    #[case("limit=0", "limit")]
    #[case("limit=1001", "limit")]
    #[case("limit=-1", "limit")]
    #[case("after=x", "after")]
    #[case("after=AAAAAAAAAAA", "after")]
    #[case("dest=a%00b", "dest")]
    #[case("status=OK,SENT", "status")]
    #[case("error_code=x", "error_code")]
    #[case("error_kind=odd", "error_kind")]
    #[case("since=yesterday", "since")]
    #[case("until=2026-11-25", "until")]
    #[case("since=9999-12-31T23:59:59-23:59", "since")]
    #[case("until=0001-01-01T00:00:00%2B23:59", "until")]
    fn wrong_parameter_is_named(#[case] query: &str, #[case] name: &'static str) {
        let refused = PageRequest::read(query).expect_err("out of its range");
        assert_eq!(refused.refusal, Refusal::InvalidParameter(name));
        assert!(refused.detail().contains(name), "{}", refused.detail());
    }

    #[test]
    fn lists_times_and_errors_are_read() {
        let query = "status=OK,+ERROR,&msg_id=a,b&error_code=190&error_kind=expired&since=1764072000\
                     &until=2025-11-25T12:00:00-03:00";
        let filter = PageRequest::read(query).expect("in order").filter;
        assert_eq!(filter.statuses, [Status::Ok, Status::Error]);
        assert_eq!(filter.msg_ids, ["a", "b"]);
        assert_eq!((filter.error_code, filter.error_kind), (Some(190), Some(ErrorKind::Expired)));
        let hours = filter.until.zip(filter.since).map(|(until, since)| (until - since).whole_hours());
        assert_eq!(hours, Some(3));
        let many = vec!["m"; MOST_MSG_IDS + 1].join(",");
        assert!(PageRequest::read(&format!("msg_id={many}")).is_err());
    }

    #[test]
    fn campaigns_are_listed_by_state_from_a_place_on() {
        let read = |query: &str| CampaignsRequest::read(query).expect("in order").filter;
        let finished = read("state=finished");
        assert_eq!((finished.state, finished.is_open), (Some(CampaignState::Running), Some(false)));
        assert_eq!(read("state=paused").state, Some(CampaignState::Paused));
        let place = CampaignPlace {
            first_at: OffsetDateTime::from_unix_timestamp(1_764_072_000).expect("a time"),
            cp_id: "verão".into(),
        };
        assert_eq!(read(&format!("after={}", campaigns_cursor(&place))).before, Some(place));
        for wrong in ["state=over", "after=AA", "limit=0"] {
            assert!(CampaignsRequest::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cancelling_needs_a_filter() {
        for query in ["", "cp_id=", "app_id=+", "msg_id=,"] {
            let refused = cancelled_filter(query).expect_err("every message is meant");
            assert_eq!((refused.code(), refused.detail()), (229, no_filter().detail()), "{query}");
        }
        let filter = cancelled_filter("batch_id=b-1&dest=ann").expect("in order");
        assert_eq!((filter.batch_id.as_deref(), filter.dest.as_deref()), (Some("b-1"), Some("ann")));
        assert!(cancelled_filter("batch_id=a+b").is_err());
    }

    #[test]
    fn cursor_is_url_safe_and_leads_to_its_row() {
        for id in [1, 7, 4_611_686_018_427_387_903, i64::MAX] {
            let cursor = cursor(RowId(id));
            assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            assert_eq!(from_cursor(&cursor), Some(RowId(id)));
        }
    }
}
