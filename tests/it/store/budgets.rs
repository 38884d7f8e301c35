//! The knowledge of Meta's budgets that workers share.

use std::time::Duration;

use meta_dispatch::domain::LineId;
use meta_dispatch::store::{BudgetDetails, BudgetRow, BudgetScope};
use rstest::rstest;
use rstest_reuse::apply;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR};

const LINE: LineId = LineId(1);
const MINUTE: Duration = Duration::from_secs(60);

fn row(scope: BudgetScope, percent: f64, limited_to: Option<f64>) -> BudgetRow {
    BudgetRow {
        scope,
        worker: String::new(),
        percent,
        heard_ago: Duration::from_secs(2),
        limited_to,
        calls: 70,
        cost: 0.1,
        window: Some(HOUR),
        held_for: Duration::ZERO,
        details: BudgetDetails {
            slack: 0.02,
            delay: 1.5,
            strangers: 20.0,
            told_share: 1.0,
            recent: vec![3, 0, 5],
        },
        updated_ago: Duration::ZERO,
        is_alive: false,
    }
}

impl Fixture {
    async fn tell_budgets(&self, worker: &str, rows: &[BudgetRow]) {
        self.store.write_budgets(worker, rows).await.expect("budgets are written");
    }

    async fn told_budgets(&self, scope: BudgetScope) -> Vec<BudgetRow> {
        let mut rows = self.store.budgets(&[scope]).await.expect("budgets are read");
        rows.sort_by(|one, other| one.worker.cmp(&other.worker));
        rows
    }
}

#[apply(on_both)]
async fn are_read_as_they_were_written(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let scope = BudgetScope::Line(LINE);
    fixture.tell_budgets("a", &[]).await;
    assert_eq!(fixture.told_budgets(scope.clone()).await, []);
    let first = BudgetRow { window: None, held_for: 7 * MINUTE, ..row(scope.clone(), 40.0, None) };
    fixture.tell_budgets("a", &[first, row(BudgetScope::App(None), 12.5, Some(0.5))]).await;
    let found = fixture.told_budgets(scope.clone()).await.remove(0);
    assert_eq!((found.worker.as_str(), found.percent, found.limited_to), ("a", 40.0, None));
    assert_eq!((found.calls, found.cost, found.window), (70, 0.1, None));
    assert!(found.held_for > 6 * MINUTE && found.held_for <= 7 * MINUTE, "{found:?}");
    assert!(found.heard_ago >= Duration::from_secs(2) && found.updated_ago < MINUTE, "{found:?}");

    fixture.tell_budgets("a", &[row(scope.clone(), 97.0, Some(3.25))]).await;
    let found = fixture.told_budgets(scope.clone()).await;
    assert_eq!(found.len(), 1, "one row a worker");
    assert_eq!((found[0].percent, found[0].limited_to, found[0].window), (97.0, Some(3.25), Some(HOUR)));
    assert_eq!(found[0].details, row(scope, 97.0, None).details);
    assert!(found[0].held_for.is_zero());
    assert_eq!(fixture.told_budgets(BudgetScope::App(Some("7".into()))).await, [], "another app");
}

#[apply(on_both)]
async fn of_living_workers_are_told_from_others(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let app = BudgetScope::App(None);
    fixture.store.renew_leases("living", HOUR, false).await.expect("leases are kept");
    for worker in ["gone", "living"] {
        fixture.tell_budgets(worker, &[row(app.clone(), 50.0, None)]).await;
    }
    let alive: Vec<bool> = fixture.told_budgets(app).await.iter().map(|row| row.is_alive).collect();
    assert_eq!(alive, [false, true]);
    assert_eq!(fixture.store.drop_old_budgets().await.expect("budgets are dropped"), 0, "all are young");
}

#[apply(on_both)]
async fn of_a_line_and_its_app_bind_the_line(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let unknown = LineId(77);
    let uses = || async { fixture.store.line_uses(&[LINE, unknown]).await.expect("uses are read") };
    assert_eq!((uses().await[0].percent, uses().await[0].limited_to), (None, None));
    fixture.tell_budgets("a", &[row(BudgetScope::Line(LINE), 40.0, None)]).await;
    fixture.tell_budgets("a", &[row(BudgetScope::App(None), 97.0, Some(3.0))]).await;
    fixture.tell_budgets("b", &[row(BudgetScope::App(None), 97.0, Some(2.0))]).await;
    fixture.tell_budgets("b", &[row(BudgetScope::App(Some("7".into())), 99.0, Some(0.1))]).await;
    let found = uses().await;
    assert_eq!((found[0].percent, found[0].limited_to), (Some(97.0), Some(5.0)));
    assert_eq!((found[1].line, found[1].percent), (unknown, None));

    fixture.execute("insert into meta_app (meta_app_id) values ('7')").await;
    fixture.execute(&format!("update cd_v8_line set v8l_meta_app = '7' where v8l_id = {LINE}")).await;
    assert_eq!((uses().await[0].percent, uses().await[0].limited_to), (Some(99.0), Some(0.1)));
}

#[apply(on_both)]
async fn day_budget_counts_who_wrote_within_a_day(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let (young, old) = match backend {
        Backend::Postgres => ("now() - interval '23 hours'", "now() - interval '25 hours'"),
        Backend::Sqlite => (
            "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-23 hours')",
            "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-25 hours')",
        ),
    };
    assert_eq!(fixture.store.count_engaged(&[LINE]).await.expect("they are counted"), []);
    for (dest, at) in [("ann", young), ("bob", young), ("cleo", old)] {
        let values = format!("({LINE}, '{dest}', {at})");
        fixture
            .execute(&format!("insert into cd_recipient (v8l_id, dest, last_inbound_at) values {values}"))
            .await;
    }
    for _ in 0..2 {
        let counted = fixture.store.count_engaged(&[LINE, LineId(77)]).await.expect("they are counted");
        assert_eq!(counted, [(LINE, 2)]);
    }
    let uses = fixture.store.line_uses(&[LINE]).await.expect("uses are read");
    assert_eq!(uses[0].day_budget, Some(400));
}
