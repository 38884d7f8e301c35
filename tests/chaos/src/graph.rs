//! The stand-in for Graph, and the second ledger: each call is written down, with what it was decided to be, before
//! a byte of its answer leaves. It runs on a thread of its own and is never killed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than the product waits; then the stand-in gives a silent call up too.
const SILENCE: Duration = Duration::from_secs(20);
/// From when on a call that is never answered counts as over: before the product gives it up.
const SILENT_CALL_ENDS: Duration = Duration::from_millis(1_500);
/// How late the stand-in may notice, on a busy machine, that a connection was closed.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);

/// What becomes of a call.
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
    /// Graph took the message.
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

    /// A complete answer that the contract lets be followed by another call.
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
    /// When its answer began to be written, or the call was given up; later than `at`.
    pub ended: Option<Instant>,
    pub decision: Decision,
    /// What an accepted message is called.
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

/// Decisions are made from seed, marker and the number of the call, so that a seed replays them.
struct Judge {
    seed: u64,
    calls_of: Mutex<HashMap<String, u64>>,
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

/// Starts the stand-in; its address, and its ledger.
pub fn start(seed: u64) -> anyhow::Result<(String, Calls)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?.to_string();
    let calls = Calls::default();
    let ledger = calls.clone();
    let judge = Arc::new(Judge { seed, calls_of: Mutex::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("graph".into()).spawn(move || {
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listening socket");
            while let Ok((stream, _)) = listener.accept().await {
                let (ledger, judge) = (ledger.clone(), Arc::clone(&judge));
                tokio::spawn(async move {
                    // A connection that breaks is what the harness is for.
                    let _ = serve(stream, &ledger, &judge).await;
                });
            }
        });
    })?;
    Ok((address, calls))
}

async fn serve(mut stream: TcpStream, ledger: &Calls, judge: &Judge) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        let (decision, latency) = judge.decide(&request.marker);
        let place = {
            let mut calls = ledger.lock();
            let message_id = format!("mid.{}", calls.len());
            calls.push(Call {
                marker: request.marker,
                line: request.line,
                dest: request.dest,
                at: Instant::now(),
                ended: None,
                decision,
                message_id,
            });
            calls.len() - 1
        };
        let is_silent = matches!(decision, Decision::Silent | Decision::AcceptedThenSilent);
        let is_open = stays_open(&mut stream, if is_silent { SILENCE } else { latency }).await;
        let message_id = {
            let call = &mut ledger.lock()[place];
            let now = Instant::now();
            let ended = if is_open { now } else { now - NOTICED_WITHIN };
            call.ended = Some(if is_silent { ended.min(call.at + SILENT_CALL_ENDS) } else { ended });
            call.message_id.clone()
        };
        if !is_open || !answer(&mut stream, decision, &message_id).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits; `false` as soon as the client gives the call up.
async fn stays_open(stream: &mut TcpStream, length: Duration) -> bool {
    // Nothing but the end comes from a client that waits for an answer.
    tokio::time::timeout(length, stream.read(&mut [0; 64])).await.is_err()
}

struct Request {
    marker: String,
    line: u64,
    dest: String,
}

/// The next request of a connection; `None` when the client has closed it.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<Option<Request>> {
    loop {
        if let Some((length, line)) = parse_head(buffer)? {
            let (head, body) = length;
            if buffer.len() >= head + body {
                let value: serde_json::Value = serde_json::from_slice(&buffer[head..head + body])?;
                buffer.drain(..head + body);
                let text = |pointer: &str| {
                    value.pointer(pointer).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
                };
                return Ok(Some(Request {
                    marker: text("/message/text"),
                    line,
                    dest: text("/recipient/id"),
                }));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Lengths of head and body, and the line whose token the request carries; `None` while the head is incomplete.
fn parse_head(buffer: &[u8]) -> anyhow::Result<Option<((usize, usize), u64)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(buffer)? else { return Ok(None) };
    let value = |name: &str| {
        request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
            .unwrap_or_default()
    };
    let body = value("content-length").parse().context("a request without Content-Length")?;
    let line = value("authorization").rsplit('-').next().and_then(|id| id.parse().ok()).unwrap_or_default();
    Ok(Some(((head, body), line)))
}

/// Answers as decided; whether the connection lives on.
async fn answer(stream: &mut TcpStream, decision: Decision, message_id: &str) -> std::io::Result<bool> {
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
            let torn =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{\"mess";
            stream.write_all(torn.as_bytes()).await?;
            return Ok(false);
        }
        Decision::AcceptedThenCut | Decision::CutBefore | Decision::AcceptedThenSilent | Decision::Silent => {
            return Ok(false);
        }
    };
    let head = format!(
        "HTTP/1.1 {status} Chaos\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
    Ok(true)
}
