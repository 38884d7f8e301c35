//! How `line list` shows a line: one row of a table, and notes below it for what a row has no room for.
//!
//! Never here: a page access token. A view says whether one is set.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;

use super::output::printable;
use super::screen::Screen;
use super::table::{Column, Table, or_dash, yes_no};
use crate::channel::{Class, Login, Rates};
use crate::domain::{AccountId, LineId};
use crate::policy::pace::Limits;
use crate::policy::token_life::{TokenAlarm, alarm};
use crate::settings::LimitSettings;
use crate::store::{LineRecord, LineUse, Store, StoreError, UNOPENED_PAUSE};
use crate::text::timestamp;

/// How the state of a paused line begins.
const PAUSED: &str = "paused until ";

/// A line as shown: never its page access token.
#[derive(Serialize)]
pub struct LineView {
    pub v8l_id: LineId,
    cdcs_id: AccountId,
    v8l_class: Class,
    v8l_name: Option<String>,
    v8l_active: bool,
    has_pat: bool,
    v8l_fb_page_id: Option<String>,
    v8l_ig_account_id: Option<String>,
    /// `null`: by the token.
    v8l_graph: Option<Login>,
    v8l_meta_app: Option<String>,
    #[serde(serialize_with = "crate::text::time_or_null")]
    v8l_pat_expires_at: Option<OffsetDateTime>,
    /// The failure of the last try to refresh the token.
    v8l_pat_error: Option<String>,
    v8l_rate_text: Option<u32>,
    v8l_rate_media: Option<u32>,
    #[serde(serialize_with = "crate::text::time_or_null")]
    v8l_paused_until: Option<OffsetDateTime>,
    v8l_pause_reason: Option<String>,
    pub state: String,
    /// The highest use of Meta's budgets in percent.
    budget_use: Option<f64>,
    /// Messages a second to which Meta's budgets limit the line, or all lines of its app together, now.
    limited_to: Option<f64>,
    /// Messages that the line may send in 24 hours.
    day_budget: Option<i64>,
    /// The note about a token that ends soon, or could not be refreshed.
    #[serde(skip)]
    token_note: Option<String>,
}

pub fn view(line: &LineRecord, now: OffsetDateTime) -> LineView {
    LineView {
        v8l_id: line.id,
        cdcs_id: line.account,
        v8l_class: line.class,
        v8l_name: line.name.clone(),
        v8l_active: line.active,
        has_pat: has_page_token(line),
        v8l_fb_page_id: line.page_id.clone(),
        v8l_ig_account_id: line.instagram_account_id.clone(),
        v8l_graph: line.login,
        v8l_meta_app: line.meta_app.clone(),
        v8l_pat_expires_at: line.token_expires_at,
        v8l_pat_error: line.token_error.clone(),
        v8l_rate_text: line.rate_text,
        v8l_rate_media: line.rate_media,
        v8l_paused_until: line.paused_until,
        v8l_pause_reason: line.pause_reason.clone(),
        state: state(line, now),
        budget_use: None,
        limited_to: None,
        day_budget: None,
        token_note: token_note(line, now),
    }
}

/// Return the views of lines with the use of their budgets.
pub async fn views(
    lines: &[LineRecord],
    store: &dyn Store,
    now: OffsetDateTime,
) -> Result<Vec<LineView>, StoreError> {
    let ids: Vec<LineId> = lines.iter().map(|line| line.id).collect();
    let uses = store.line_uses(&ids).await?;
    Ok(lines.iter().zip(&uses).map(|(line, found)| view(line, now).with(found)).collect())
}

/// Return a note about a token that ends soon, has ended, or could not be refreshed.
fn token_note(line: &LineRecord, now: OffsetDateTime) -> Option<String> {
    let left = line.token_expires_at.map(|at| Duration::try_from(at - now).unwrap_or_default());
    let error = line.token_error.as_deref();
    let remedy = "connect it again, and use `line set-pat`";
    let end = match (left.and_then(alarm), line.token_expires_at) {
        (Some(TokenAlarm::Ended), Some(at)) => format!("its token has ended at {}", timestamp(at)),
        (Some(_), Some(at)) => format!("its token ends at {}", timestamp(at)),
        _ => return error.map(|error| format!("its token could not be refreshed ({error})")),
    };
    let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
    Some(format!("{end}{error}: {remedy}"))
}

fn has_page_token(line: &LineRecord) -> bool {
    line.page_token.as_ref().is_some_and(|token| !token.expose_secret().trim().is_empty())
}

/// Whether the line may send, and if not, why: the cause that has to be removed first.
fn state(line: &LineRecord, now: OffsetDateTime) -> String {
    /// A pause that ends later than this was made without an end.
    const ENDLESS: time::Duration = time::Duration::days(36_500);
    if !line.account_active {
        return "account disabled".into();
    }
    if !line.active {
        return "inactive".into();
    }
    if !has_page_token(line) {
        return "no token".into();
    }
    let has_page_id = line.page_id.as_deref().is_some_and(|id| !id.trim().is_empty());
    if line.class.needs_page_id && !has_page_id {
        return "no page id".into();
    }
    let has_account_id = line.instagram_account_id.as_deref().is_some_and(|id| !id.trim().is_empty());
    if line.login.is_some_and(Login::needs_account_id) && !has_account_id {
        return "no account id".into();
    }
    match line.paused_until {
        Some(until) if until > now => {
            let reason = line.pause_reason.as_deref().unwrap_or("no reason given");
            let until = if reason.starts_with(UNOPENED_PAUSE) {
                "the token opens or `line set-pat` replaces it".to_owned()
            } else if until - now > ENDLESS {
                "resumed".to_owned()
            } else {
                timestamp(until)
            };
            format!("{PAUSED}{until} ({reason})")
        }
        _ => "sending".into(),
    }
}

/// The table of lines, and its notes.
pub fn list(lines: &[LineView], limits: &LimitSettings, screen: Screen) -> String {
    const COLUMNS: [Column; 11] = [
        Column::number("V8L_ID"),
        Column::number("CDCS_ID"),
        Column::new("CLASS"),
        Column::text("NAME", 8),
        Column::new("ACTIVE").spare(3),
        Column::new("PAGE ID").spare(2),
        Column::new("PAT").spare(1),
        Column::new("TEXT/s"),
        Column::new("MEDIA/s"),
        Column::new("BUDGET").spare(4),
        Column::state("STATE"),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for line in lines {
        let default = limits.of(line.v8l_class);
        table.add([
            line.v8l_id.to_string(),
            line.cdcs_id.to_string(),
            line.v8l_class.to_string(),
            or_dash(line.v8l_name.as_ref()),
            yes_no(line.v8l_active).into(),
            page(line),
            if line.has_pat { "set" } else { "none" }.into(),
            limit(line.v8l_rate_text, default.text),
            limit(line.v8l_rate_media, default.media),
            line.budget(),
            if line.is_paused() { "paused".into() } else { line.state.clone() },
        ]);
    }
    let notes: Vec<String> = lines.iter().flat_map(|line| line.notes(limits)).collect();
    if notes.is_empty() { table.render() } else { format!("{}\n\n{}", table.render(), notes.join("\n")) }
}

impl LineView {
    fn with(self, found: &LineUse) -> LineView {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        LineView {
            budget_use: found.percent.map(tenths),
            limited_to: found.limited_to.map(tenths),
            day_budget: found.day_budget,
            ..self
        }
    }

    /// The use of Meta's budgets, and the rate to which they limit the line.
    fn budget(&self) -> String {
        let percent = self.budget_use.map(|percent| format!("{percent:.0} %"));
        let limit = self.limited_to.map(|limit| format!("{limit}/s"));
        let texts: Vec<String> = percent.into_iter().chain(limit).collect();
        or_dash(Some(texts.join(", ")).filter(|text| !text.is_empty()))
    }

    fn is_paused(&self) -> bool {
        self.state.starts_with(PAUSED)
    }

    /// The end and the reason of a pause, and limits that are not in force.
    fn notes(&self, limits: &LimitSettings) -> Vec<String> {
        let pause = self.is_paused().then(|| format!("line {} is {}", self.v8l_id, printable(&self.state)));
        let above = above_ceiling(self.v8l_class, self.v8l_rate_text, self.v8l_rate_media, limits);
        let token =
            self.token_note.as_deref().map(|note| format!("line {}: {}", self.v8l_id, printable(note)));
        pause
            .into_iter()
            .chain(token)
            .chain(above.iter().map(|note| format!("line {}: {note}", self.v8l_id)))
            .collect()
    }
}

/// A note for each limit of a line's own that is above Meta's ceiling.
pub fn above_ceiling(
    class: Class,
    text: Option<u32>,
    media: Option<u32>,
    limits: &LimitSettings,
) -> Vec<String> {
    let none = Rates { text: 1, media: 1 };
    let in_force = Limits::of(class, none, limits.enforce_ceilings, text, media);
    let notes =
        [("text", in_force.text), ("media", in_force.media)].into_iter().filter_map(|(medium, limit)| {
            let asked = limit.clamped_from?;
            Some(format!(
                "{asked} {medium} a second is above Meta's ceiling: {} is in force",
                limit.per_second
            ))
        });
    notes.collect()
}

/// The page's id; an Instagram line may have none, and is known by its account.
fn page(line: &LineView) -> String {
    let instagram = line.v8l_ig_account_id.as_ref().map(|id| format!("ig:{id}"));
    or_dash(line.v8l_fb_page_id.clone().or(instagram))
}

/// A line's own limit, or its class's in brackets.
fn limit(own: Option<u32>, default: u32) -> String {
    own.map_or_else(|| format!("({default})"), |own| own.to_string())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::super::table::widest;
    use super::*;
    use crate::settings::ClassLimits;

    const NOW: OffsetDateTime = datetime!(2026-11-23 14:15:20 UTC);

    fn line() -> LineRecord {
        LineRecord {
            id: LineId(7),
            account: AccountId(1),
            name: None,
            class: Class::MESSENGER,
            active: true,
            account_active: true,
            page_token: Some("EAAsecret".into()),
            page_id: Some("1234".into()),
            instagram_account_id: None,
            login: None,
            token_expires_at: None,
            token_version: 0,
            token_error: None,
            meta_app: None,
            app_secret: None,
            rate_text: None,
            rate_media: Some(5),
            paused_until: None,
            pause_left: None,
            pause_reason: None,
        }
    }

    #[rstest]
    #[case::it_may_send(line(), "sending")]
    #[case::its_account_is_disabled(LineRecord { account_active: false, active: false, ..line() }, "account disabled")]
    #[case::it_is_inactive(LineRecord { active: false, page_token: None, ..line() }, "inactive")]
    #[case::it_has_no_token(LineRecord { page_token: Some("".into()), ..line() }, "no token")]
    #[case::its_account_id_is_missing(LineRecord { login: Some(Login::Unified), ..line() }, "no account id")]
    #[case::it_is_paused(
        LineRecord {
            paused_until: Some(datetime!(2026-11-23 14:45 UTC)),
            pause_reason: Some("613".into()),
            ..line()
        },
        "paused until 2026-11-23T14:45:00.000Z (613)"
    )]
    #[case::it_is_paused_without_end(
        LineRecord {
            paused_until: Some(datetime!(9999-01-01 0:00 UTC)),
            pause_reason: Some("by an operator".into()),
            ..line()
        },
        "paused until resumed (by an operator)"
    )]
    #[case::its_token_cannot_be_opened(
        LineRecord {
            paused_until: Some(datetime!(2126-01-01 0:00 UTC)),
            pause_reason: Some("page token cannot be opened: key 0011aabb is not in security.key".into()),
            ..line()
        },
        "paused until the token opens or `line set-pat` replaces it \
         (page token cannot be opened: key 0011aabb is not in security.key)"
    )]
    #[case::its_pause_has_ended(LineRecord { paused_until: Some(NOW), ..line() }, "sending")]
    fn state_says_whether_a_line_sends_or_why_not(#[case] line: LineRecord, #[case] expected: &str) {
        assert_eq!(state(&line, NOW), expected);
    }

    fn limits() -> LimitSettings {
        LimitSettings {
            enforce_ceilings: true,
            classes: Class::ALL.iter().map(|class| (*class, ClassLimits { text: 40, media: 10 })).collect(),
        }
    }

    fn screen(width: u16) -> Screen {
        Screen { width: Some(width), colours: false }
    }

    #[test]
    fn list_says_that_a_page_token_is_set_and_hides_it() {
        let view = view(&line(), NOW);
        let json = serde_json::to_string(&view).expect("it serialises");
        assert!(json.contains(r#""has_pat":true"#) && !json.contains("EAAsecret"), "{json}");
        let table = list(&[view], &limits(), screen(160));
        assert!(table.contains("set") && table.contains("(40)") && !table.contains("EAAsecret"), "{table}");
    }

    #[rstest]
    fn list_fits_a_terminal(#[values(80, 160)] width: u16) {
        let long = LineRecord {
            id: LineId(1_234_567),
            name: Some("a name that is longer than any line 日本語 👍 ".repeat(9)),
            class: Class::INSTAGRAM,
            page_id: Some("12345678901234567".into()),
            ..line()
        };
        let disabled = LineRecord { account_active: false, ..line() };
        let text = list(&[view(&long, NOW), view(&disabled, NOW)], &limits(), screen(width));
        assert_eq!((text.lines().count(), widest(&text)), (3, width), "{text}");
        assert_eq!(text.contains("12345678901234567"), width == 160, "{text}");
        assert!(text.contains('…') && text.contains("account disabled"), "{text}");
    }

    #[rstest]
    #[case::ends_in_a_month(Some(datetime!(2026-12-23 14:15 UTC)), None, None)]
    #[case::ends_soon(Some(datetime!(2026-12-01 14:15 UTC)), None, Some("its token ends at 2026-12-01T14:15:00.000Z: "))]
    #[case::has_ended(Some(datetime!(2026-11-01 14:15 UTC)), None, Some("its token has ended at "))]
    #[case::not_refreshed(None, Some("no answer"), Some("its token could not be refreshed (no answer)"))]
    #[case::ends_and_is_not_refreshed(
        Some(datetime!(2026-12-01 14:15 UTC)), Some("no answer"), Some("its token ends at 2026-12-01T14:15:00.000Z (no answer): ")
    )]
    fn token_that_ends_has_a_note(
        #[case] token_expires_at: Option<OffsetDateTime>,
        #[case] error: Option<&str>,
        #[case] expected: Option<&str>,
    ) {
        let record = LineRecord { token_expires_at, token_error: error.map(str::to_owned), ..line() };
        let note = token_note(&record, NOW);
        assert_eq!(note.is_some(), expected.is_some(), "{note:?}");
        assert!(note.unwrap_or_default().starts_with(expected.unwrap_or_default()));
    }

    #[test]
    fn notes_stand_below_the_table() {
        let paused = LineRecord {
            paused_until: Some(datetime!(2026-11-23 14:45 UTC)),
            pause_reason: Some("Graph: cannot send (190/460)".into()),
            rate_text: Some(500),
            ..line()
        };
        let text = list(&[view(&paused, NOW), view(&line(), NOW)], &limits(), screen(80));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("paused") && lines[2].ends_with("sending"), "{text}");
        let notes = [
            "",
            "line 7 is paused until 2026-11-23T14:45:00.000Z (Graph: cannot send (190/460))",
            "line 7: 500 text a second is above Meta's ceiling: 300 is in force",
        ];
        assert_eq!(lines[3..], notes, "{text}");
    }
}
