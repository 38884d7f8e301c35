use super::*;

const ONE: LineId = LineId(1);
const OTHER: LineId = LineId(2);

fn reading(percent: f64) -> Reading {
    Reading { percent, regain: Duration::ZERO }
}

/// Budgets of two lines of one app, of which this use was told.
fn told(percent: f64) -> (Budgets, Instant) {
    let mut budgets = Budgets::default();
    budgets.know(ONE, None);
    budgets.know(OTHER, None);
    let now = budgets.origin + Duration::from_secs(10);
    for n in 0..100 {
        budgets.spend(ONE, Lane::Bulk, budgets.origin + Duration::from_millis(100 * n));
    }
    if let Some(app) = budgets.apps.get_mut(&None) {
        let ticket = app.budget.ticket();
        app.budget.hear(reading(percent), ticket, 9.9, 10.0);
    }
    (budgets, now)
}

#[test]
fn nothing_told_is_no_limit_and_no_row() {
    let mut budgets = Budgets::default();
    budgets.know(ONE, Some("7"));
    let now = budgets.origin;
    assert_eq!(budgets.allowance(ONE, now).bulk, u32::MAX);
    let order = budgets.order(true, now).expect("new budgets are read");
    assert_eq!((order.read.len(), order.write.len()), (2, 0));
    budgets.spend(ONE, Lane::High, now);
    assert!(budgets.order(true, now).is_none());
}

#[test]
fn lines_of_an_app_take_turns() {
    let (mut budgets, now) = told(60.0);
    budgets.waits(OTHER, now);
    budgets.waits(ONE, now);
    let later = now + Duration::from_millis(60);
    assert_eq!(budgets.allowance(ONE, later).bulk, 0, "the other has waited longer");
    assert_eq!(budgets.allowance(OTHER, later).bulk, 1);
    budgets.spend(OTHER, Lane::Bulk, later);
    let later = later + Duration::from_millis(90);
    assert!(budgets.allowance(ONE, later + Duration::from_secs(5)).bulk >= 1, "nobody waits longer");
}

#[test]
fn row_of_the_owner_before_is_begun_with() {
    let (mut before, now) = told(97.0);
    if let Some(app) = before.apps.get_mut(&None) {
        app.is_told = true;
    }
    let order = before.order(true, now).expect("the app's use was told");
    let rows: Vec<BudgetRow> = order
        .write
        .into_iter()
        .map(|row| BudgetRow { worker: "gone".into(), is_alive: false, ..row })
        .collect();
    let mut next = Budgets::default();
    next.know(ONE, None);
    let now = next.origin;
    next.apply("me", vec![BudgetScope::App(None)], rows, now);
    let percent = next.apps[&None].budget.percent(0.0).expect("the use was told");
    assert!((percent - 97.5).abs() < 1.0, "{percent}");
    assert!(next.allowance(ONE, now).is_short);
}
