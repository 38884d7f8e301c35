//! The stand-in for Graph, and the second ledger: each call is written down, with its decision, before a byte
//! of its answer leaves. The stand-in runs on a thread of its own and is never killed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testkit::graph::{self, Answer, Graph};
use tokio::net::TcpListener;

/// Longer than the product waits; then the stand-in gives a silent call up too.
const SILENCE: Duration = Duration::from_secs(20);
/// The age at which a call that is never answered counts as over: before the product gives it up.
const SILENT_CALL_ENDS: Duration = Duration::from_millis(1_500);
/// The longest delay with which the stand-in notices, on a busy machine, that a connection was closed.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);

/// The fate of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    Accepted,
    /// Code 10: outside the window.
    Refused,
    /// Code 551.
    NotAvailable,
    /// Code 1200: try again later.
    Later,
    /// Code 613.
    RateLimited,
    /// Code 2, nothing taken.
    Failed,
    /// HTML of a gateway, status 502, nothing taken.
    Gateway,
    AcceptedThenFailed,
    /// Code 1, subcode 1357046: everything was sent.
    AcceptedThenDenied,
    AcceptedThenCut,
    /// Half an answer.
    AcceptedThenTorn,
    AcceptedThenSilent,
    CutBefore,
    Silent,
}

impl Decision {
    /// Whether Graph took the message.
    pub fn is_accepted(self) -> bool {
        matches!(
            self,
            Decision::Accepted
                | Decision::AcceptedThenFailed
                | Decision::AcceptedThenDenied
                | Decision::AcceptedThenCut
                | Decision::AcceptedThenTorn
                | Decision::AcceptedThenSilent
        )
    }

    /// Whether the decision is a complete answer after which the contract allows another call.
    pub fn may_be_repeated(self) -> bool {
        matches!(
            self,
            Decision::Later
                | Decision::RateLimited
                | Decision::Failed
                | Decision::Gateway
                | Decision::AcceptedThenFailed
        )
    }

    pub fn is_refusal(self) -> bool {
        matches!(self, Decision::Refused | Decision::NotAvailable)
    }
}

/// A line of the ledger.
#[derive(Debug, Clone)]
pub struct Call {
    pub marker: String,
    pub line: u64,
    pub dest: String,
    pub at: Instant,
    /// The time at which its answer began to be written, or the call was given up; later than `at`.
    pub ended: Option<Instant>,
    pub decision: Decision,
    /// The id of an accepted message.
    pub message_id: String,
}

/// The ledger of all calls, in the order in which they arrived.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn snapshot(&self) -> Vec<Call> {
        self.lock().clone()
    }
}

/// The maker of decisions, from seed, marker and the number of the call, so that a seed replays them.
struct Judge {
    seed: u64,
    calls_of: Mutex<HashMap<String, u64>>,
    ledger: Calls,
}

impl Judge {
    fn decide(&self, marker: &str) -> (Decision, Duration) {
        let mut calls_of = self.calls_of.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = calls_of.entry(marker.to_owned()).or_default();
        *nth += 1;
        let number: u64 =
            marker.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_default();
        let mut rng = StdRng::seed_from_u64(self.seed ^ number.rotate_left(20) ^ nth.rotate_left(52));
        let decision = match rng.random_range(0..1_000) {
            0..15 => Decision::Refused,
            15..20 => Decision::NotAvailable,
            20..40 => Decision::Later,
            40..42 => Decision::RateLimited,
            42..52 => Decision::Failed,
            52..56 => Decision::Gateway,
            56..76 => Decision::AcceptedThenFailed,
            76..79 => Decision::AcceptedThenDenied,
            79..89 => Decision::AcceptedThenCut,
            89..93 => Decision::AcceptedThenTorn,
            93..98 => Decision::AcceptedThenSilent,
            98..102 => Decision::CutBefore,
            102..106 => Decision::Silent,
            _ => Decision::Accepted,
        };
        (decision, Duration::from_millis(rng.random_range(20..120)))
    }
}

/// A call's place in the ledger, and its fate.
struct Case {
    place: usize,
    decision: Decision,
}

impl Case {
    fn is_silent(&self) -> bool {
        matches!(self.decision, Decision::Silent | Decision::AcceptedThenSilent)
    }
}

impl Graph for Judge {
    type Case = Case;

    fn take(&self, call: &graph::Call<'_>) -> (Case, Duration) {
        let marker = call.text();
        let (decision, latency) = self.decide(&marker);
        let mut calls = self.ledger.lock();
        let case = Case { place: calls.len(), decision };
        calls.push(Call {
            marker,
            line: call.token().rsplit('-').next().and_then(|id| id.parse().ok()).unwrap_or_default(),
            dest: String::from_utf8_lossy(call.recipient()).into_owned(),
            at: call.at,
            ended: None,
            decision,
            message_id: format!("mid.{}", case.place),
        });
        let length = if case.is_silent() { SILENCE } else { latency };
        (case, length)
    }

    fn answer(&self, case: Case, is_open: bool) -> Answer {
        let call = &mut self.ledger.lock()[case.place];
        let now = Instant::now();
        let ended = if is_open { now } else { now - NOTICED_WITHIN };
        call.ended = Some(if case.is_silent() { ended.min(call.at + SILENT_CALL_ENDS) } else { ended });
        answer(case.decision, &call.message_id)
    }
}

/// Start the stand-in; return its address, and its ledger.
pub fn start(seed: u64) -> anyhow::Result<(String, Calls)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?.to_string();
    let calls = Calls::default();
    let judge = Judge { seed, calls_of: Mutex::default(), ledger: calls.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("graph".into()).spawn(move || {
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listening socket");
            graph::serve(listener, judge).await
        })
    })?;
    Ok((address, calls))
}

/// Return the answer of a decision.
fn answer(decision: Decision, message_id: &str) -> Answer {
    let error = |code: i64, subcode: i64| {
        format!(
            r#"{{"error":{{"message":"chaos","type":"OAuthException","code":{code},"error_subcode":{subcode},"fbtrace_id":"A"}}}}"#
        )
    };
    let (status, body) = match decision {
        Decision::Accepted => (200, format!(r#"{{"recipient_id":"1","message_id":"{message_id}"}}"#)),
        Decision::Refused => (400, error(10, 2_018_278)),
        Decision::NotAvailable => (400, error(551, 1_545_041)),
        Decision::Later => (400, error(1200, 0)),
        Decision::RateLimited => (400, error(613, 0)),
        Decision::Failed | Decision::AcceptedThenFailed => (500, error(2, 0)),
        Decision::AcceptedThenDenied => (500, error(1, 1_357_046)),
        Decision::Gateway => (502, "<html><body>502 Bad Gateway</body></html>".to_owned()),
        Decision::AcceptedThenTorn => {
            return Answer::Cut(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{\"mess",
            );
        }
        Decision::AcceptedThenCut | Decision::CutBefore | Decision::AcceptedThenSilent | Decision::Silent => {
            return Answer::Cut("");
        }
    };
    Answer::Whole(status, body)
}
