//! The life of one call: a claimed row is sent, the answer judged, and what becomes of the row decided.
//!
//! Nothing here waits for a limit, touches the log, or retries: the row's next state is handed back as a [`Change`].

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use rand::Rng;
use tokio::time::Instant;

use super::line::PlannedCall;
use crate::failpoint;
use crate::graph::{Call, GraphClient};
use crate::message::{Lane, LineId, Medium, MessageId};
use crate::policy::classify::{CallResult, Judgement, PauseDemand, classify};
use crate::policy::retry::{Next, RetryPolicy, Tried, decide};
use crate::store::{Change, ReadyRow};

/// What every call needs.
pub struct SendContext {
    pub graph: GraphClient,
    pub policy: RetryPolicy,
}

/// How a call ended.
pub struct Finished {
    pub ticket: Ticket,
    pub change: Change,
    pub waiter: Option<String>,
    pub pause: Option<PauseDemand>,
    /// Graph took the message.
    pub sent: bool,
}

/// Which call this was, for the line that made it.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub line: LineId,
    pub id: MessageId,
    pub fence: i32,
    pub lane: Lane,
    pub medium: Medium,
    pub dest: String,
    pub waiter: Option<String>,
    /// When the call began.
    pub begun: Instant,
    attempts: i32,
    tries: i32,
    expires: Instant,
}

impl Ticket {
    pub fn of(call: &PlannedCall) -> Ticket {
        let PlannedCall { row, expires, begun, .. } = call;
        Ticket {
            begun: *begun,
            line: row.line,
            id: row.id,
            fence: row.fence,
            lane: row.lane,
            medium: row.kind.medium(),
            dest: row.dest.clone(),
            waiter: row.waiter.clone(),
            attempts: row.attempts,
            tries: row.tries,
            expires: *expires,
        }
    }

    /// What the row becomes after this result of its call.
    pub fn conclude(self, result: &CallResult, policy: &RetryPolicy) -> Finished {
        let judgement = classify(result);
        let tried = Tried {
            attempts: self.attempts.max(1) as u32,
            tries: self.tries.max(0) as u32,
            valid_for: self.expires.saturating_duration_since(Instant::now()),
        };
        let next = decide(&judgement, tried, policy, rand::rng().random());
        tracing::debug!(
            cdls_id = %self.id, line = %self.line, attempt = self.attempts, code = judgement.error.code,
            subcode = judgement.error.subcode, ?next, "call ended"
        );
        let next = match (result, next) {
            (CallResult::Cut { .. }, _) if failpoint::defect("timeout_retried_silently") => {
                Next::Retry { after: policy.base, counted: false, ambiguous: false }
            }
            (_, next) => next,
        };
        let sent = matches!(next, Next::Sent { .. });
        let change = change(self.id, self.fence, next, &judgement, http_status(result));
        Finished { change, waiter: self.waiter.clone(), pause: judgement.pause, sent, ticket: self }
    }
}

/// Makes the call. A panic on the way leaves the outcome unknown; it never takes the worker down.
pub async fn send(context: super::SharedSendContext, call: PlannedCall) -> Finished {
    let ticket = Ticket::of(&call);
    let PlannedCall { row, sender, .. } = call;
    let request = Call {
        class: sender.class,
        kind: row.kind,
        dest: &row.dest,
        mdata: &row.mdata,
        page_token: &sender.page_token,
    };
    failpoint::hit("before_call");
    let result = AssertUnwindSafe(context.graph.send(&request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| CallResult::Cut { reason: "the call failed inside this process".into() });
    failpoint::hit("after_call");
    ticket.conclude(&result, &context.policy)
}

fn http_status(result: &CallResult) -> i32 {
    match result {
        CallResult::Answer(answer) => i32::from(answer.http_status),
        CallResult::NotSent { .. } | CallResult::Unsendable { .. } | CallResult::Cut { .. } => 0,
    }
}

fn change(id: MessageId, fence: i32, next: Next, judgement: &Judgement, http_status: i32) -> Change {
    let error = judgement.error.clone();
    match next {
        Next::Sent { message_id } => Change::Sent { id, fence, http_status, message_id },
        Next::Fail { kind, ambiguous } => Change::Failed { id, fence, kind, error, ambiguous },
        Next::Retry { after, counted, ambiguous } => {
            Change::Retry { id, fence, after, error, counted, ambiguous }
        }
        Next::Unknown => Change::Unknown { id, fence, error },
        Next::WaitForLine => Change::WaitForLine { id, fence, error },
    }
}

/// How long a row stays claimed before others may settle it: its call's total timeout and two seconds.
pub fn call_deadline(graph: &GraphClient, row: &ReadyRow) -> Duration {
    graph.total_timeout(row.kind) + Duration::from_secs(2)
}
