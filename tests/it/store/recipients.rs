//! Windows and reach of recipients, and the messages that end or go first because of it.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Medium;
use meta_dispatch::domain::{AccountId, CampaignState, ErrorKind, Lane, LineId, RowId, Status, WindowState};
use meta_dispatch::store::{
    ChangeKind, ClosingCursor, ClosingLook, ClosingRows, Contact, Flow, LineRecipient, RecipientCounts,
    Scope, SharedStore, Unreachable,
};
use meta_dispatch::text::timestamp;
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, LONG_AGO, bulk, text};

const FAR: &str = "'2099-01-01T00:00:00.000Z'";
const ACCOUNT: AccountId = AccountId(1);
const LINE: LineId = LineId(1);

fn of(line: i64, dest: &str) -> LineRecipient {
    LineRecipient { line: LineId(line), dest: dest.into() }
}

/// Return the literal of a time some seconds from now.
fn in_seconds(seconds: u64) -> String {
    format!("'{}'", timestamp(OffsetDateTime::now_utc() + Duration::from_secs(seconds)))
}

impl Fixture {
    /// Let a recipient of line 1 be known: the end of the window, and the time of a refusal, as literals.
    async fn known(&self, dest: &str, window_until: &str, unreachable_since: &str) {
        self.execute(&format!(
            "insert into cd_recipient (v8l_id, dest, window_until, unreachable_since)
             values (1, '{dest}', {window_until}, {unreachable_since})"
        ))
        .await;
    }

    async fn window_of(&self, dest: &str) -> (WindowState, bool) {
        let facts = self.store.recipient(Scope::Operator, LINE, dest).await.expect("the store answers");
        let facts = facts.expect("the line exists");
        (facts.window, facts.unreachable_since.is_some())
    }
}

#[apply(on_both)]
async fn contacts_are_in_the_order_asked(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.known("open", FAR, "null").await;
    fixture.known("closed", LONG_AGO, "null").await;
    fixture.known("gone", "null", LONG_AGO).await;
    let asked =
        [of(1, "open"), of(1, "nobody"), of(1, "closed"), of(2, "closed"), of(1, "gone"), of(1, "open")];
    let contacts = fixture.store.contacts(&asked).await.expect("the store answers");
    let now = Instant::now();
    let withheld: Vec<Option<ErrorKind>> = contacts.iter().map(|contact| contact.withholds(now)).collect();
    let expected = [None, None, Some(ErrorKind::Window), None, Some(ErrorKind::Unreachable), None];
    assert_eq!(withheld, expected);
    assert_eq!(contacts[1], Contact::default());
    assert!(contacts[0].closes.is_some_and(|closes| closes > now + HOUR));
    assert!(fixture.store.contacts(&[]).await.expect("the store answers").is_empty());
}

#[apply(on_both)]
async fn unreachable_recipient_keeps_its_first_time(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.known("known", FAR, "null").await;
    fixture.known("gone", "null", LONG_AGO).await;
    fixture
        .execute(&format!(
            "insert into cd_recipient (v8l_id, dest, last_inbound_at, window_until) values (1, 'wrote', {FAR}, {FAR})"
        ))
        .await;
    let mark = async |dests: &[&str]| {
        let gone: Vec<Unreachable> =
            dests.iter().map(|dest| Unreachable { recipient: of(1, dest), called: Instant::now() }).collect();
        fixture.store.mark_unreachable(&gone).await.expect("the store answers");
    };
    mark(&["new", "known", "gone", "wrote", "new"]).await;
    assert_eq!(fixture.window_of("new").await, (WindowState::Unknown, true));
    assert_eq!(fixture.window_of("known").await, (WindowState::Open, true));
    assert_eq!(
        fixture.window_of("wrote").await,
        (WindowState::Open, false),
        "the recipient wrote after the call"
    );
    let old = format!("select count(*) from cd_recipient where unreachable_since = {LONG_AGO}");
    assert_eq!(fixture.number(&old).await, 1);
}

#[apply(on_both)]
async fn recipient_is_shown_to_the_account_of_its_line(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.known("ann", LONG_AGO, "null").await;
    let look = async |scope, line, dest| {
        fixture.store.recipient(scope, LineId(line), dest).await.expect("the store answers")
    };
    let ann = look(Scope::Account(ACCOUNT), 1, "ann").await.expect("the line is the account's");
    assert_eq!((ann.app_id, ann.dest.as_str(), ann.window), (LINE, "ann", WindowState::Closed));
    assert!(ann.window_until.is_some() && ann.last_inbound_at.is_none() && ann.unreachable_since.is_none());
    let nobody = look(Scope::Account(ACCOUNT), 1, "nobody").await.expect("the line is the account's");
    assert_eq!((nobody.window, nobody.window_until), (WindowState::Unknown, None));
    assert_eq!(look(Scope::Account(AccountId(2)), 1, "ann").await, None);
    assert_eq!(look(Scope::Operator, 99, "ann").await, None);
}

#[apply(on_both)]
async fn counts_each_recipient_once(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.known("open", FAR, "null").await;
    fixture.known("closed", LONG_AGO, "null").await;
    fixture.known("gone", FAR, LONG_AGO).await;
    let asked = [
        of(1, "open"),
        of(1, "open"),
        of(1, "closed"),
        of(1, "gone"),
        of(1, "x"),
        of(1, "y"),
        of(2, "open"),
        of(9, "z"),
    ];
    let counts =
        async |account| fixture.store.recipient_counts(account, &asked).await.expect("the store answers");
    let of_line = |line, open, closed, unknown, unreachable| RecipientCounts {
        app_id: LineId(line),
        open,
        closed,
        unknown,
        unreachable,
    };
    assert_eq!(counts(ACCOUNT).await, [of_line(1, 1, 1, 2, 1), of_line(2, 0, 0, 1, 0)]);
    assert!(counts(AccountId(2)).await.is_empty());
}

#[apply(on_both)]
async fn row_ends_only_while_its_recipient_is_so(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.known("closed", LONG_AGO, "null").await;
    fixture.known("open", FAR, "null").await;
    fixture.known("gone", FAR, LONG_AGO).await;
    for (dest, kind, ends) in [
        ("closed", ErrorKind::Unreachable, false),
        ("closed", ErrorKind::Window, true),
        ("open", ErrorKind::Window, false),
        ("gone", ErrorKind::Window, false),
        ("gone", ErrorKind::Unreachable, true),
        ("nobody", ErrorKind::Window, false),
        ("nobody", ErrorKind::Unreachable, false),
    ] {
        let id = fixture.log_one(text(dest)).await;
        assert_eq!(fixture.change_at(id, 0, ChangeKind::Withheld { kind }).await, ends, "{dest} {kind}");
        let row = fixture.row(id).await;
        let expected = if ends { (Status::Error, Some(kind)) } else { (Status::Pending, None) };
        assert_eq!((row.status, row.error_kind), expected, "{dest} {kind}");
        assert_eq!(
            (row.attempts, row.status_code, row.error_message.is_some()),
            (0, 0, ends),
            "{dest} {kind}"
        );
    }
}

#[apply(on_both)]
async fn withheld_row_does_not_count_for_the_rate_of_its_campaign(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.known("closed", LONG_AGO, "null").await;
    let id = fixture.log_one(bulk("closed", "spring")).await;
    assert!(fixture.change_at(id, 0, ChangeKind::Withheld { kind: ErrorKind::Window }).await);
    let rate = fixture.store.campaign_rate(ACCOUNT, "spring", Duration::from_secs(60)).await;
    assert_eq!(rate.expect("the store answers"), 0.0);
    let errors = fixture.store.campaign_errors(ACCOUNT, "spring").await.expect("the store answers");
    assert_eq!(errors.iter().map(|error| error.error_kind).collect::<Vec<_>>(), [Some(ErrorKind::Window)]);
}

fn look(from: Option<ClosingCursor>, limit: u32) -> ClosingLook {
    let flow = Flow { line: LINE, lane: Lane::Bulk, medium: Medium::Text, campaign: "spring".into() };
    ClosingLook { account: ACCOUNT, flow, after: RowId(-1), per_second: 1, from, limit }
}

async fn closing(store: &SharedStore, look: &ClosingLook) -> ClosingRows {
    store.closing_rows(look).await.expect("the store answers")
}

fn ids(found: &ClosingRows) -> Vec<RowId> {
    found.rows.iter().map(|closing| closing.row.id).collect()
}

#[apply(on_both)]
async fn finds_rows_whose_windows_close_within_the_backlog(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    // At one a second, 30 rows take 30 seconds.
    let rows: Vec<_> = (0..28).map(|n| bulk(&format!("d{n}"), "spring")).collect();
    let rows = fixture.log(&rows).await;
    let again = fixture.log(&[bulk("d7", "spring"), bulk("d7", "autumn")]).await;
    assert!(store.lines_with_open_windows(&[LINE, LineId(2)]).await.expect("it answers").is_empty());
    fixture.known("d7", &in_seconds(20), "null").await;
    fixture.known("d3", &in_seconds(10), "null").await;
    fixture.known("d5", &in_seconds(300), "null").await;
    fixture.known("d6", LONG_AGO, "null").await;
    fixture.known("nobody", &in_seconds(5), "null").await;
    fixture.known("d4", &in_seconds(15), LONG_AGO).await;
    assert_eq!(store.lines_with_open_windows(&[LINE, LineId(2)]).await.expect("it answers"), [LINE]);

    let found = closing(store, &look(None, 100)).await;
    assert_eq!((ids(&found), &found.reached), (vec![rows[3], rows[7], again[0]], &None));
    let ends: Vec<Instant> = found.rows.iter().map(|closing| closing.closes).collect();
    assert!(ends.is_sorted() && ends[0] > Instant::now() && ends[2] < Instant::now() + HOUR);
    let flow = look(None, 1).flow;
    assert!(found.rows.iter().all(|closing| closing.row.flow() == flow));

    let (mut from, mut all) = (None, Vec::new());
    for _ in 0..3 {
        let found = closing(store, &look(from.take(), 1)).await;
        all.extend(ids(&found));
        from = found.reached;
        assert!(from.is_some(), "there may be more");
    }
    assert_eq!(all, [rows[3], rows[7], again[0]]);
    assert_eq!(closing(store, &look(from, 1)).await.reached, None);

    let fast = ClosingLook { per_second: 1_000, ..look(None, 100) };
    assert!(closing(store, &fast).await.rows.is_empty(), "the backlog takes no time");
    store.set_campaign(ACCOUNT, "spring", CampaignState::Paused).await.expect("campaigns can be paused");
    assert!(closing(store, &look(None, 100)).await.rows.is_empty());
}
