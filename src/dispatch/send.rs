//! The life of one call: a claimed row is sent, the answer judged, and what becomes of the row decided.
//!
//! Nothing here waits for a limit, touches the log, or retries: the row's next state is handed back as a [`Change`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rand::Rng;
use tokio::time::Instant;

use super::lease::SendUntil;
use super::line::PlannedCall;
use crate::failpoint;
use crate::graph::{Call, GraphClient};
use crate::message::{ErrorDetail, LineId, MessageId};
use crate::metrics::METRICS;
use crate::policy::breaker::Health;
use crate::policy::classify::{CallResult, PauseDemand, Subject, classify};
use crate::policy::retry::{Next, RetryPolicy, Tried, decide, decide_orphan};
use crate::store::{Change, ChangeKind, ClaimedRow, ReadyRow};

/// What every call needs.
pub struct SendContext {
    pub graph: GraphClient,
    pub policy: RetryPolicy,
    pub send_until: SendUntil,
}

/// How a call ended.
pub struct Finished {
    pub ticket: Ticket,
    pub change: Change,
    pub pause: Option<PauseDemand>,
    /// What the call says about Graph's host; nothing if it was not made.
    pub health: Option<Health>,
}

/// Which call this was, for the line that made it.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// As claimed.
    pub row: Arc<ReadyRow>,
    /// When the call began.
    pub begun: Instant,
    /// The breaker's period it began in.
    pub period: u64,
    /// Whose call it was, as usage headers name it.
    subject: Arc<Subject>,
    expires: Instant,
}

impl Ticket {
    pub fn of(call: &PlannedCall, period: u64) -> Ticket {
        Ticket {
            row: call.row.clone(),
            begun: call.begun,
            period,
            subject: call.sender.subject.clone(),
            expires: call.expires,
        }
    }

    pub fn id(&self) -> MessageId {
        self.row.id
    }

    pub fn line(&self) -> LineId {
        self.row.line
    }

    fn change(&self, kind: ChangeKind) -> Change {
        let begun = Some(self.begun.into_std());
        Change { id: self.row.id, fence: self.row.fence, begun, crashed: false, kind }
    }

    /// What the row becomes after this result of its call.
    ///
    /// A defect that panics over an answer leaves the outcome unknown; it takes neither the worker nor the row with it.
    pub fn conclude(self, result: &CallResult, policy: &RetryPolicy) -> Finished {
        let judged = std::panic::catch_unwind(AssertUnwindSafe(|| self.judge(result, policy)));
        let (change, pause, health) = judged.unwrap_or_else(|_| {
            let message = "judging the answer failed inside this process".to_owned();
            let error = ErrorDetail { message, ..ErrorDetail::default() };
            (self.change(ChangeKind::Unknown { error }), None, None)
        });
        Finished { change, pause, health, ticket: self }
    }

    fn judge(
        &self,
        result: &CallResult,
        policy: &RetryPolicy,
    ) -> (Change, Option<PauseDemand>, Option<Health>) {
        let judgement = classify(result, &self.subject);
        let tried = Tried {
            attempts: self.row.attempts.max(1) as u32,
            tries: self.row.tries.max(0) as u32,
            valid_for: self.expires.saturating_duration_since(Instant::now()),
        };
        let next = decide(&judgement, tried, policy, rand::rng().random());
        tracing::debug!(
            cdls_id = %self.row.id, line = %self.row.line, attempt = self.row.attempts, code = judgement.error.code,
            subcode = judgement.error.subcode, ?next, "call ended"
        );
        let next = match (result, next) {
            (CallResult::Cut { .. }, _) if failpoint::defect("timeout_retried_silently") => {
                Next::Retry { after: policy.base, counted: false, ambiguous: false }
            }
            (_, next) => next,
        };
        let change = self.change(kind(next, &judgement.error, http_status(result)));
        let health = Health::of(result, &judgement);
        (change, judgement.pause, health)
    }

    /// The call was not made: this process may not send any more. Nothing of its request was written.
    fn withdraw(self) -> Finished {
        let change = Change::release(self.row.id, self.row.fence);
        Finished { change, pause: None, health: None, ticket: self }
    }
}

/// Makes the call. A panic on the way leaves the outcome unknown; it never takes the worker down.
pub async fn send(context: super::SharedSendContext, ticket: Ticket, call: PlannedCall) -> Finished {
    // Asked again, because the process may have been frozen since the call was planned; and once more when a connection
    // is there and the request is about to be written.
    let partition = ticket.line().partition();
    if !context.send_until.allows(partition, Instant::now()) {
        return ticket.withdraw();
    }
    let PlannedCall { row, sender, .. } = call;
    let request = Call {
        class: sender.class,
        kind: row.kind,
        dest: &row.dest,
        mdata: &row.mdata,
        page_token: &sender.page_token,
    };
    failpoint::hit("before_call");
    METRICS.dispatch.begun.increment(1);
    let started = Instant::now();
    let send_until = context.send_until.clone();
    let may_begin = move || send_until.allows(partition, Instant::now());
    let result = AssertUnwindSafe(context.graph.send(&request, may_begin))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Ok(CallResult::Cut { reason: "the call failed inside this process".into() }));
    let Ok(result) = result else { return ticket.withdraw() };
    METRICS.dispatch.call_took(sender.class, started.elapsed());
    failpoint::hit("after_call");
    ticket.conclude(&result, &context.policy)
}

fn http_status(result: &CallResult) -> i32 {
    match result {
        CallResult::Answer(answer) => i32::from(answer.http_status),
        CallResult::NotSent { .. } | CallResult::Unsendable { .. } | CallResult::Cut { .. } => 0,
    }
}

fn kind(next: Next, error: &ErrorDetail, http_status: i32) -> ChangeKind {
    let error = error.clone();
    match next {
        Next::Sent { message_id } => ChangeKind::Sent { http_status, message_id },
        Next::Fail { kind, ambiguous } => ChangeKind::Failed { kind, error, ambiguous },
        Next::Retry { after, counted, ambiguous } => ChangeKind::Retry { after, error, counted, ambiguous },
        Next::Unknown => ChangeKind::Unknown { error },
        Next::WaitForLine { ambiguous } => ChangeKind::WaitForLine { error, ambiguous },
    }
}

/// What a row becomes whose worker is gone: it died inside the call, or froze past its lease.
pub fn orphaned(row: &ClaimedRow, policy: &RetryPolicy) -> Change {
    let count = |number: i32| number.max(0) as u32;
    let tried = Tried {
        attempts: count(row.attempts),
        tries: count(row.tries),
        valid_for: row.valid_for.try_into().unwrap_or_default(),
    };
    let next = decide_orphan(tried, count(row.crashes).saturating_add(1), policy, rand::rng().random());
    let message = "the worker that made this call is gone; whether Graph took the message is not known";
    let error = ErrorDetail { message: message.into(), ..ErrorDetail::default() };
    let begun = std::time::Instant::now().checked_sub(row.age);
    Change { id: row.id, fence: row.fence, begun, crashed: true, kind: kind(next, &error, 0) }
}

/// How long a row stays claimed before others may settle it: its call's total `timeout` and two seconds.
pub fn call_deadline(timeout: Duration) -> Duration {
    timeout + Duration::from_secs(2)
}
