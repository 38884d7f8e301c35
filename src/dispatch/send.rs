//! The life of one call: sends a claimed row, judges the answer, and decides the row's next state.
//!
//! Never here: waiting for a limit, the log, retries. The row's next state is returned as a [`Change`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rand::Rng;
use tokio::time::Instant;

use super::dispatcher::Tickets;
use super::line::PlannedCall;
use super::tasks::lease::SendUntil;
use crate::channel::Class;
use crate::domain::{ErrorDetail, LineId, Metadata, MetadataKey, RowId};
use crate::failpoint;
use crate::graph::{Call, GraphClient, Host};
use crate::metrics::METRICS;
use crate::policy::breaker::{HostHealth, is_failure};
use crate::policy::classify::{CallResult, CodeOverrides, Judgement, Subject, classify_with, is_listed};
use crate::policy::retry::{Next, RetryHistory, RetryPolicy, decide, decide_orphan, decide_suspect};
use crate::policy::usage::{self, Usage};
use crate::store::{Change, ChangeKind, ClaimedRow, ReadyRow};

/// The data that every call needs.
pub struct SendContext {
    pub graph: GraphClient,
    pub policy: RetryPolicy,
    /// Codes to which the settings give a meaning.
    pub codes: CodeOverrides,
    /// The key of messages' metadata; `None`: webhooks are off, and messages carry none.
    pub metadata_key: Option<MetadataKey>,
    pub send_until: SendUntil,
}

/// The end of a call.
pub struct Finished {
    pub in_flight: CallInFlight,
    /// The row's next state, except for the part that depends on its line.
    pub change: Change,
    /// The meaning of the answer; `None` if the call was not made.
    pub judgement: Option<Judgement>,
    /// The use of Meta's budgets that the answer tells.
    pub usage: Usage,
    /// The evidence of the call about Graph's host; `None` if it was not made.
    pub health: Option<HostHealth>,
    /// Whether the call failed its line; `None` if it was not made.
    pub is_failure: Option<bool>,
}

/// The identity of a call, for the line that made it.
#[derive(Debug, Clone)]
pub struct CallInFlight {
    /// The row as claimed.
    pub row: Arc<ReadyRow>,
    /// When the call began.
    pub begun: Instant,
    /// The host that was called, and its breaker's period in which the call began.
    pub host: Host,
    pub period: u64,
    /// The number of the call in Meta's budgets.
    pub tickets: Tickets,
    /// The sender of the call, as usage headers name it.
    subject: Arc<Subject>,
    expires: Instant,
    /// The id of the asset that the call names in place of its URL.
    pub attachment_id: Option<Arc<str>>,
}

impl CallInFlight {
    pub fn of(call: &PlannedCall, period: u64) -> CallInFlight {
        CallInFlight {
            row: call.row.clone(),
            begun: call.begun,
            host: call.sender.endpoint.host(),
            period,
            tickets: Tickets::default(),
            subject: call.sender.subject.clone(),
            expires: call.expires,
            attachment_id: call.attachment_id.clone(),
        }
    }

    pub fn id(&self) -> RowId {
        self.row.id
    }

    pub fn line(&self) -> LineId {
        self.row.line
    }

    fn change(&self, kind: ChangeKind) -> Change {
        let begun = Some(self.begun.into_std());
        Change { id: self.row.id, fence: self.row.fence, begun, crashed: false, kind }
    }

    /// Decide the row's next state after this result of its call.
    ///
    /// A defect that panics over an answer leaves the outcome unknown; it takes neither the worker nor the
    /// row with it.
    pub fn conclude(self, result: &CallResult, context: &SendContext) -> Finished {
        let judged =
            std::panic::catch_unwind(AssertUnwindSafe(|| (self.judge(result, context), self.usage(result))));
        match judged {
            Ok(((change, judgement), usage)) => Finished {
                change,
                usage,
                health: HostHealth::of(result, &judgement),
                is_failure: is_failure(result, &judgement),
                judgement: Some(judgement),
                in_flight: self,
            },
            Err(_) => {
                let message = "judging the answer failed inside this process".to_owned();
                let error = ErrorDetail { message, ..ErrorDetail::default() };
                let change = self.change(ChangeKind::Unknown { error });
                self.without_meaning(change)
            }
        }
    }

    fn history(&self) -> RetryHistory {
        RetryHistory {
            attempts: self.row.attempts.max(1) as u32,
            tries: self.row.tries.max(0) as u32,
            valid_for: self.expires.saturating_duration_since(Instant::now()),
        }
    }

    /// Decide the next state of a row whose refusal may be about itself or about its line. `paused_for`: the
    /// rest of the line's pause.
    pub fn suspected(&self, judgement: &Judgement, paused_for: Duration, policy: &RetryPolicy) -> Change {
        let next = decide_suspect(judgement, self.history(), policy, paused_for);
        self.change(kind(next, &judgement.error, 0))
    }

    fn judge(&self, result: &CallResult, context: &SendContext) -> (Change, Judgement) {
        let SendContext { policy, codes, .. } = context;
        let judgement = classify_with(result, &self.subject, codes);
        if let ErrorDetail { code: Some(code), subcode, .. } = judgement.error
            && judgement.by_graph
            && !is_listed(code, subcode, codes)
        {
            METRICS.codes.unlisted(code, subcode);
        }
        let next = decide(&judgement, self.history(), policy, rand::rng().random());
        let (decision, after_seconds) = shown(&next);
        tracing::debug!(
            cdls_id = %self.row.id, line = %self.row.line, attempt = self.row.attempts, code = judgement.error.code,
            subcode = judgement.error.subcode, decision, after_seconds, "call ended"
        );
        (self.change(kind(next, &judgement.error, http_status(result))), judgement)
    }

    /// End a call that was not made because this process may not send any more. No byte of its request was
    /// written.
    fn withdraw(self) -> Finished {
        let change = Change::release(self.row.id, self.row.fence);
        self.without_meaning(change)
    }

    fn without_meaning(self, change: Change) -> Finished {
        let usage = Usage::default();
        Finished { change, judgement: None, usage, health: None, is_failure: None, in_flight: self }
    }

    fn usage(&self, result: &CallResult) -> Usage {
        match result {
            CallResult::Answer(answer) => usage::read(answer, &self.subject),
            _ => Usage::default(),
        }
    }
}

/// Make the call. A panic on the way leaves the outcome unknown; it never takes the worker down.
pub async fn send(context: Arc<SendContext>, in_flight: CallInFlight, call: PlannedCall) -> Finished {
    // The check is repeated, because the process may have been frozen since the call was planned; and once
    // more when a connection is open and the request is about to be written.
    let partition = in_flight.line().partition();
    if !context.send_until.allows(partition, Instant::now()) {
        return in_flight.withdraw();
    }
    let PlannedCall { row, sender, attachment_id, .. } = call;
    let metadata = metadata(&context, &in_flight, sender.class);
    let request = Call {
        endpoint: &sender.endpoint,
        app_secret: sender.app_secret.as_deref(),
        class: sender.class,
        kind: row.kind,
        dest: &row.dest,
        mdata: &row.mdata,
        attachment_id: attachment_id.as_deref(),
        metadata: metadata.as_deref(),
        page_token: &sender.page_token,
    };
    failpoint::hit("before_call");
    METRICS.dispatch.begun.increment(1);
    METRICS.attachments.reused.increment(u64::from(attachment_id.is_some()));
    let started = Instant::now();
    let send_until = context.send_until.clone();
    let may_begin = move || send_until.allows(partition, Instant::now());
    let result = AssertUnwindSafe(context.graph.send(&request, may_begin))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Ok(CallResult::Cut { reason: "the call failed inside this process".into() }));
    let Ok(result) = result else { return in_flight.withdraw() };
    METRICS.dispatch.call_took(sender.class, started.elapsed());
    failpoint::hit("after_call");
    in_flight.conclude(&result, &context)
}

/// Return the text by which the echo of a call's message is known, where Meta returns it.
fn metadata(context: &SendContext, in_flight: &CallInFlight, class: Class) -> Option<String> {
    let key = context.metadata_key.as_ref().filter(|_| class.returns_metadata)?;
    Some(Metadata::write(key, in_flight.id(), in_flight.row.fence))
}

/// Return a decision's word for the log, and the delay of a retry.
fn shown(next: &Next) -> (&'static str, Option<f64>) {
    match next {
        Next::Sent { .. } => ("sent", None),
        Next::Fail { .. } => ("error", None),
        Next::Retry { after, .. } => ("retry", Some(after.as_secs_f64())),
        Next::Unknown => ("unknown", None),
        Next::WaitForLine { .. } => ("wait for the line", None),
        Next::Suspected { after, .. } => ("retry after another message", Some(after.as_secs_f64())),
    }
}

fn http_status(result: &CallResult) -> i32 {
    match result {
        CallResult::Answer(answer) => i32::from(answer.http_status),
        CallResult::NotSent { .. }
        | CallResult::NoFile { .. }
        | CallResult::Unsendable { .. }
        | CallResult::Cut { .. } => 0,
    }
}

fn kind(next: Next, error: &ErrorDetail, http_status: i32) -> ChangeKind {
    let error = error.clone();
    match next {
        Next::Sent { graph_id } => ChangeKind::Sent { http_status, graph_id },
        Next::Fail { kind, ambiguous } => ChangeKind::Failed { kind, error, ambiguous },
        Next::Retry { after, counted, ambiguous } => ChangeKind::Retry { after, error, counted, ambiguous },
        Next::Unknown => ChangeKind::Unknown { error },
        Next::WaitForLine { ambiguous } => ChangeKind::WaitForLine { error, ambiguous },
        Next::Suspected { after, ambiguous } => ChangeKind::Suspected { after, error, ambiguous },
    }
}

/// Decide the next state of a row whose worker is gone: it died inside the call, or froze past its lease.
pub fn orphaned(row: &ClaimedRow, policy: &RetryPolicy) -> Change {
    let count = |number: i32| number.max(0) as u32;
    let history = RetryHistory {
        attempts: count(row.attempts),
        tries: count(row.tries),
        valid_for: row.valid_for.try_into().unwrap_or_default(),
    };
    let next = decide_orphan(history, count(row.crashes).saturating_add(1), policy, rand::rng().random());
    let message = "the worker that made this call is gone; whether Graph took the message is not known";
    let error = ErrorDetail { message: message.into(), ..ErrorDetail::default() };
    let begun = std::time::Instant::now().checked_sub(row.age);
    Change { id: row.id, fence: row.fence, begun, crashed: true, kind: kind(next, &error, 0) }
}

/// Return the time for which a row stays claimed before others may settle it: its call's total `timeout` and
/// two seconds.
pub fn call_deadline(timeout: Duration) -> Duration {
    timeout + Duration::from_secs(2)
}
