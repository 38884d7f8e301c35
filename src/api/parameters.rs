//! The query parameters of a list: filters, cursor, limit. Blank ones count as missing, and of a name given twice the
//! last counts. One that is out of its range is refused by its name.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use url::form_urlencoded;

use crate::ingest::Refusal;
use crate::message::{LineId, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS, MessageId};
use crate::store::MessageFilter;

pub const DEFAULT_LIMIT: u32 = 100;
pub const LARGEST_LIMIT: u32 = 1_000;
/// What a cursor begins with; one of another version is refused.
const CURSOR_VERSION: u8 = 1;

/// A page that is asked for.
#[derive(Debug)]
pub struct Page {
    pub filter: MessageFilter,
    /// Rows below this id.
    pub before: MessageId,
    pub limit: u32,
}

impl Page {
    pub fn read(query: &str) -> Result<Page, Refusal> {
        let given: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let value = |name: &str| {
            let of_name = given.iter().rev().find(|(given, _)| given == name);
            of_name.map(|(_, value)| value.as_str()).filter(|value| !value.trim().is_empty())
        };
        let text = |name: &'static str, longest: usize| match value(name) {
            Some(text) if text.contains('\0') || text.chars().count() > longest => {
                Err(Refusal::InvalidParameter(name))
            }
            text => Ok(text.map(str::to_owned)),
        };
        let status = value("status").map(str::parse).transpose();
        // The alias of the send endpoints: ignored, it would show the messages of all lines.
        let line = match value("app_id").or_else(|| value("v8l_id")).map(str::parse::<i64>) {
            None => None,
            Some(Ok(id)) if id > 0 => Some(LineId(id)),
            Some(_) => return Err(Refusal::InvalidParameter("app_id")),
        };
        let filter = MessageFilter {
            status: status.map_err(|_| Refusal::InvalidParameter("status"))?,
            line,
            cp_id: text("cp_id", MAX_CP_ID_CHARS)?,
            msg_id: text("msg_id", MAX_MSG_ID_CHARS)?,
            dest: text("dest", MAX_DEST_CHARS)?,
        };
        let before = match value("after") {
            None => MessageId(i64::MAX),
            Some(cursor) => from_cursor(cursor).ok_or(Refusal::InvalidParameter("after"))?,
        };
        let limit = match value("limit").map(str::parse) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=LARGEST_LIMIT).contains(&limit) => limit,
            Some(_) => return Err(Refusal::InvalidParameter("limit")),
        };
        Ok(Page { filter, before, limit })
    }
}

/// The cursor that goes on after this row. Opaque: its form may change with its version.
pub fn cursor(last: MessageId) -> String {
    let mut bytes = vec![CURSOR_VERSION];
    bytes.extend(last.0.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn from_cursor(cursor: &str) -> Option<MessageId> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (version, id) = bytes.split_first()?;
    let id = i64::from_be_bytes(id.try_into().ok()?);
    (*version == CURSOR_VERSION && id > 0).then_some(MessageId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Status;
    use rstest::rstest;

    #[test]
    fn filters_are_read_and_blank_ones_are_missing() {
        let page = Page::read("status=OK&app_id=7&cp_id=&msg_id=a+b&dest=%C3%A1&limit=5").expect("in order");
        assert_eq!((page.filter.status, page.filter.line), (Some(Status::Ok), Some(LineId(7))));
        assert_eq!(page.filter.cp_id, None);
        assert_eq!(page.filter.msg_id.as_deref(), Some("a b"));
        assert_eq!(page.filter.dest.as_deref(), Some("á"));
        assert_eq!((page.limit, page.before), (5, MessageId(i64::MAX)));
        assert_eq!(Page::read("").expect("in order").limit, 100);
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
    fn a_wrong_parameter_is_named(#[case] query: &str, #[case] name: &'static str) {
        assert_eq!(Page::read(query).err(), Some(Refusal::InvalidParameter(name)));
    }

    #[test]
    fn a_cursor_is_safe_in_a_url_and_leads_back_to_its_row() {
        for id in [1, 7, 4_611_686_018_427_387_903, i64::MAX] {
            let cursor = cursor(MessageId(id));
            assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            assert_eq!(from_cursor(&cursor), Some(MessageId(id)));
        }
    }
}
