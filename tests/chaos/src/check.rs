//! The checker: compares the client's answers, Graph's calls, and the log. Pure; never here: code of the
//! product.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use crate::graph::{Call, Decision};
use crate::load::Sent;

/// A row of `cdls`.
#[derive(Debug, Clone)]
pub struct Row {
    pub cdls_id: i64,
    pub msg_id: String,
    pub status: String,
    pub message_id: Option<String>,
    pub attempts: i32,
    pub ambiguous_attempts: i32,
    pub error_kind: Option<String>,
    pub error_code: Option<i32>,
}

impl<'r> FromRow<'r, PgRow> for Row {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Row> {
        Ok(Row {
            cdls_id: row.try_get("cdls_id")?,
            msg_id: row.try_get("msg_id")?,
            status: row.try_get("status")?,
            message_id: row.try_get("message_id")?,
            attempts: row.try_get("attempts")?,
            ambiguous_attempts: row.try_get("ambiguous_attempts")?,
            error_kind: row.try_get("error_kind")?,
            error_code: row.try_get("error_code")?,
        })
    }
}

impl Row {
    /// Whether the row never changes again: OK, ERROR and CANCELLED.
    pub fn is_settled(&self) -> bool {
        matches!(self.status.as_str(), "OK" | "ERROR" | "CANCELLED")
    }

    /// Whether no worker will change the row.
    pub fn is_final(&self) -> bool {
        self.is_settled() || self.status == "UNKNOWN"
    }
}

/// The promises that are checked, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// An accepted message was neither taken by Graph, nor ended as ERROR with a reason, nor is it UNKNOWN.
    Lost,
    /// A row is not final although the system has been quiet for long.
    Stuck,
    /// A row is OK with an id that Graph never gave that message, or refused where Graph refused nothing.
    Phantom,
    /// Graph took a message more often than `ambiguous_attempts` + 1 times.
    Unexplained,
    /// Graph was called again after another result than a complete answer that may be retried (policy
    /// `hold`).
    Repeated,
    /// Two calls to one recipient at a time: two owners.
    Overlap,
    /// A row that was OK, ERROR or CANCELLED became something else.
    Changed,
    /// One request, two rows; or a row without a request.
    Stray,
}

impl Invariant {
    pub const ALL: [Invariant; 8] = [
        Invariant::Lost,
        Invariant::Stuck,
        Invariant::Phantom,
        Invariant::Unexplained,
        Invariant::Repeated,
        Invariant::Overlap,
        Invariant::Changed,
        Invariant::Stray,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Invariant::Lost => "lost",
            Invariant::Stuck => "stuck",
            Invariant::Phantom => "phantom",
            Invariant::Unexplained => "unexplained duplicates",
            Invariant::Repeated => "repeated without leave",
            Invariant::Overlap => "overlapping calls",
            Invariant::Changed => "final rows changed",
            Invariant::Stray => "stray rows",
        }
    }
}

/// A promise broken, with the history of the message.
#[derive(Debug, Clone)]
pub struct Violation {
    pub invariant: Invariant,
    pub history: String,
}

/// The result of the three ledgers together.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub intended: usize,
    pub accepted: usize,
    /// Logged although the client received no such answer.
    pub recovered: usize,
    pub by_status: BTreeMap<String, usize>,
    pub calls: usize,
    pub delivered: usize,
    pub duplicates: usize,
    /// UNKNOWN rows for which Graph saw a call, and those whose claim never became one.
    pub unknown_called: usize,
    pub unknown_uncalled: usize,
    /// UNKNOWN rows whose message Graph had taken.
    pub unknown_delivered: usize,
    pub decisions: BTreeMap<String, usize>,
}

/// The three ledgers.
pub struct Ledgers {
    pub messages: Vec<Sent>,
    pub calls: Vec<Call>,
    pub rows: Vec<Row>,
    /// Rows that had been seen in a state that never changes, with that state.
    pub changed: HashMap<i64, String>,
}

/// The moment at which the ledgers were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The system runs: calls were taken before rows, and only violations that no later moment can mend are
    /// looked for.
    Running,
    /// The system no longer changes.
    Quiet,
}

struct Message<'a> {
    rows: Vec<&'a Row>,
    calls: Vec<&'a Call>,
}

/// Check the ledgers against the promises. `hold`: the policy was `dispatch.on_ambiguous = "hold"`.
pub fn check(ledgers: &Ledgers, moment: Moment, hold: bool) -> Verdict {
    let mut by_marker: HashMap<&str, Message> = HashMap::new();
    let none = || Message { rows: Vec::new(), calls: Vec::new() };
    for row in &ledgers.rows {
        by_marker.entry(&row.msg_id).or_insert_with(none).rows.push(row);
    }
    for call in &ledgers.calls {
        by_marker.entry(&call.marker).or_insert_with(none).calls.push(call);
    }
    let mut verdict = count(ledgers);
    for (number, sent) in ledgers.messages.iter().enumerate() {
        let marker = format!("m{number}");
        let message = by_marker.remove(marker.as_str()).unwrap_or_else(none);
        judge(&mut verdict, &marker, sent, &message, &ledgers.changed, moment, hold);
    }
    // While the load goes on, rows may be newer than the client's ledger.
    for (marker, message) in by_marker.into_iter().filter(|_| moment == Moment::Quiet) {
        verdict.break_promise(Invariant::Stray, marker, None, &message);
    }
    overlaps(&mut verdict, &ledgers.calls);
    verdict.violations.sort_by_key(|violation| violation.invariant);
    verdict
}

fn count(ledgers: &Ledgers) -> Verdict {
    let mut verdict = Verdict {
        intended: ledgers.messages.len(),
        accepted: ledgers.messages.iter().filter(|sent| sent.accepted.is_some()).count(),
        calls: ledgers.calls.len(),
        ..Verdict::default()
    };
    for row in &ledgers.rows {
        *verdict.by_status.entry(row.status.clone()).or_default() += 1;
    }
    for call in &ledgers.calls {
        *verdict.decisions.entry(format!("{:?}", call.decision)).or_default() += 1;
    }
    verdict
}

fn judge(
    verdict: &mut Verdict,
    marker: &str,
    sent: &Sent,
    message: &Message,
    changed: &HashMap<i64, String>,
    moment: Moment,
    hold: bool,
) {
    let Message { rows, calls } = message;
    let deliveries = calls.iter().filter(|call| call.decision.is_accepted()).count();
    verdict.delivered += usize::from(deliveries > 0);
    verdict.duplicates += deliveries.saturating_sub(1);
    verdict.recovered += usize::from(sent.accepted.is_none() && !rows.is_empty());
    let mut broken = Vec::new();
    if rows.iter().any(|row| changed.contains_key(&row.cdls_id)) {
        broken.push(Invariant::Changed);
    }
    if rows.len() > 1 {
        broken.push(Invariant::Stray);
    }
    let row = rows.first().copied();
    if is_lost(sent, row, deliveries, moment) {
        broken.push(Invariant::Lost);
    }
    let explained = row.map_or(0, |row| row.ambiguous_attempts.max(0) as usize);
    if deliveries > explained + 1 {
        broken.push(Invariant::Unexplained);
    }
    let before_last = calls.len().saturating_sub(1);
    if hold && calls[..before_last].iter().any(|call| !call.decision.may_be_repeated()) {
        broken.push(Invariant::Repeated);
    }
    if let Some(row) = row.filter(|_| moment == Moment::Quiet) {
        if !row.is_final() {
            broken.push(Invariant::Stuck);
        }
        if is_phantom(row, calls) {
            broken.push(Invariant::Phantom);
        }
        if row.status == "UNKNOWN" {
            verdict.unknown_called += usize::from(!calls.is_empty());
            verdict.unknown_uncalled += usize::from(calls.is_empty());
            verdict.unknown_delivered += usize::from(deliveries > 0);
        }
    }
    for invariant in broken {
        verdict.break_promise(invariant, marker, Some(sent), message);
    }
}

/// Whether an accepted message is lost. A client that received an id has that row, always; and in the end the
/// row shows the message's outcome.
fn is_lost(sent: &Sent, row: Option<&Row>, deliveries: usize, moment: Moment) -> bool {
    let Some((id, _)) = sent.accepted else { return false };
    let Some(row) = row.filter(|row| row.cdls_id == id) else { return true };
    let settled = match row.status.as_str() {
        "ERROR" => row.error_kind.is_some(),
        "UNKNOWN" => true,
        _ => deliveries > 0,
    };
    moment == Moment::Quiet && !settled
}

/// Whether the row claims an answer that Graph did not give.
fn is_phantom(row: &Row, calls: &[&Call]) -> bool {
    match (row.status.as_str(), row.error_kind.as_deref()) {
        ("OK", _) => !calls.iter().any(|call| {
            call.decision == Decision::Accepted && Some(&call.message_id) == row.message_id.as_ref()
        }),
        ("ERROR", Some("refused")) => !calls.iter().any(|call| call.decision.is_refusal()),
        _ => false,
    }
}

/// Note calls that overlap. A recipient identifies a lane: each is written to in one only.
fn overlaps(verdict: &mut Verdict, calls: &[Call]) {
    let mut last: HashMap<(u64, &str), &Call> = HashMap::new();
    for call in calls {
        if let Some(before) = last.insert((call.line, &call.dest), call)
            // A call that is still open may have been given up already; a later look knows.
            && before.ended.is_some_and(|ended| call.at < ended)
        {
            let both = Message { rows: Vec::new(), calls: vec![before, call] };
            verdict.break_promise(Invariant::Overlap, &call.dest, None, &both);
        }
    }
}

impl Verdict {
    fn break_promise(&mut self, invariant: Invariant, what: &str, sent: Option<&Sent>, message: &Message) {
        let mut history = format!("{what}:");
        if let Some((id, _)) = sent.and_then(|sent| sent.accepted) {
            let _ = write!(history, " accepted as {id};");
        }
        for row in &message.rows {
            let _ = write!(
                history,
                " row {} {} attempts {} ambiguous {} id {:?} error {:?}/{:?};",
                row.cdls_id,
                row.status,
                row.attempts,
                row.ambiguous_attempts,
                row.message_id,
                row.error_kind,
                row.error_code
            );
        }
        let first = message.calls.first().map(|call| call.at);
        for call in &message.calls {
            let after = first.map(|first| call.at - first).unwrap_or_default();
            let _ = write!(history, " call {} +{after:.1?} {:?};", call.marker, call.decision);
        }
        self.violations.push(Violation { invariant, history });
    }

    pub fn broken(&self, invariant: Invariant) -> usize {
        self.violations.iter().filter(|violation| violation.invariant == invariant).count()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn sent(id: i64) -> Sent {
        Sent { line: 1, accepted: Some((id, Instant::now())) }
    }

    fn row(status: &str, ambiguous_attempts: i32) -> Row {
        Row {
            cdls_id: 7,
            msg_id: "m0".into(),
            status: status.into(),
            message_id: Some("mid.0".into()),
            attempts: 1,
            ambiguous_attempts,
            error_kind: None,
            error_code: None,
        }
    }

    fn call(after: u64, decision: Decision) -> Call {
        let at = Instant::now() + Duration::from_secs(after);
        Call {
            marker: "m0".into(),
            line: 1,
            dest: "high-1-0".into(),
            at,
            ended: Some(at + Duration::from_millis(10)),
            decision,
            message_id: "mid.0".into(),
        }
    }

    fn broken(rows: Vec<Row>, calls: Vec<Call>) -> Vec<Invariant> {
        let ledgers = Ledgers { messages: vec![sent(7)], calls, rows, changed: HashMap::new() };
        check(&ledgers, Moment::Quiet, true).violations.iter().map(|found| found.invariant).collect()
    }

    #[test]
    fn accepts_a_message_sent_once() {
        assert_eq!(broken(vec![row("OK", 0)], vec![call(0, Decision::Accepted)]), []);
    }

    #[test]
    fn reports_a_missing_row_as_lost() {
        assert_eq!(broken(vec![], vec![]), [Invariant::Lost]);
    }

    #[test]
    fn reports_a_waiting_row_as_lost_and_stuck() {
        assert_eq!(broken(vec![row("PENDING", 0)], vec![]), [Invariant::Lost, Invariant::Stuck]);
    }

    #[test]
    fn reports_an_unexplained_second_delivery() {
        let calls = vec![call(0, Decision::AcceptedThenFailed), call(1, Decision::Accepted)];
        assert_eq!(broken(vec![row("OK", 1)], calls.clone()), []);
        assert_eq!(broken(vec![row("OK", 0)], calls), [Invariant::Unexplained]);
    }

    #[test]
    fn reports_a_repeated_cut_call_under_hold() {
        let calls = vec![call(0, Decision::CutBefore), call(1, Decision::Accepted)];
        assert_eq!(broken(vec![row("OK", 1)], calls), [Invariant::Repeated]);
    }

    #[test]
    fn reports_an_unknown_graph_id_as_phantom() {
        assert_eq!(
            broken(vec![row("OK", 0)], vec![call(0, Decision::AcceptedThenCut)]),
            [Invariant::Phantom]
        );
    }

    #[test]
    fn reports_overlapping_calls_to_a_recipient() {
        let (first, mut second) = (call(0, Decision::Later), call(0, Decision::Accepted));
        second.at = first.at;
        assert_eq!(broken(vec![row("OK", 0)], vec![first, second]), [Invariant::Overlap]);
    }
}
