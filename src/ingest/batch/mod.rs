//! Many messages in one request (contract 3): lines are read, checked and handed to the acceptor in chunks, and answered
//! in order. What is held in memory does not grow with the batch.
//!
//! Each line is logged once however often its batch is sent: the row is committed together with the line's number.

mod known;
mod read;
mod spool;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::accept::Verdict;
use super::parameters::{Given, Parameters};
use super::refusal::Refusal;
use super::{Ingest, unavailable, validate};
use crate::message::{AccountId, Class, MessageId};
use crate::metrics::METRICS;
use crate::store::{BatchLine, Inserted, NewMessage, Once};
use known::Known;
pub use read::Format;
use read::{Input, Reader, WrongColumn};
pub use spool::Spool;

/// Chunks handed in whose answers are awaited; beyond, nothing more is read.
const MOST_CHUNKS: usize = 4;
/// A client that sends nothing for this long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// After a line could not be logged, those that follow are refused for a moment without a try.
const AWAY: Duration = Duration::from_secs(1);

/// Why a batch is refused as a whole, before any line of it is logged.
#[derive(Debug, PartialEq, Eq)]
pub enum BatchRefusal {
    Refused(Refusal),
    /// The header row of a CSV names something that is no parameter, or one twice.
    WrongColumn(String),
}

impl From<Refusal> for BatchRefusal {
    fn from(refusal: Refusal) -> BatchRefusal {
        BatchRefusal::Refused(refusal)
    }
}

impl From<WrongColumn> for BatchRefusal {
    fn from(wrong: WrongColumn) -> BatchRefusal {
        BatchRefusal::WrongColumn(wrong.0)
    }
}

/// The body broke off, or nothing came any more.
#[derive(Debug, thiserror::Error)]
#[error("the batch was cut")]
pub struct Cut;

/// What is asked of a batch as a whole.
pub struct Wanted {
    /// Looked at again while the batch is read: it may be revoked meanwhile.
    pub token: SecretString,
    pub account: AccountId,
    pub format: Format,
    /// Values for what a line does not give.
    pub defaults: Parameters,
    pub batch_id: String,
    /// Whether it may have been sent before.
    pub is_named: bool,
}

/// A batch under way.
pub struct Batch<S> {
    ingest: Arc<Ingest>,
    wanted: Account,
    number: i64,
    body: S,
    has_ended: bool,
    is_finished: bool,
    /// Lines answered that an earlier sending had logged.
    logged_before: u64,
    rest: Bytes,
    reader: Reader,
    known: Known,
    waiting: VecDeque<Chunk>,
    away_until: Option<Instant>,
}

/// Whose batch it is.
struct Account {
    id: AccountId,
    token: SecretString,
    may_be_repeated: bool,
}

/// Lines handed in together.
struct Chunk(Vec<(i64, Answer)>);

enum Answer {
    Known(Verdict),
    Awaited(oneshot::Receiver<Verdict>),
}

impl<S, E> Batch<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Opens a batch, and reads the header row of a CSV.
    pub async fn open(ingest: Arc<Ingest>, mut wanted: Wanted, body: S) -> Result<Batch<S>, BatchRefusal> {
        wanted.defaults.set_default("priority", "bulk");
        let opened = ingest.store.open_batch(wanted.account, &wanted.batch_id, ingest.idempotency_ttl).await;
        let mut batch = Batch {
            number: opened.map_err(unavailable)?,
            ingest,
            wanted: Account { id: wanted.account, token: wanted.token, may_be_repeated: wanted.is_named },
            body,
            has_ended: false,
            is_finished: false,
            logged_before: 0,
            rest: Bytes::new(),
            reader: Reader::new(wanted.format, wanted.defaults),
            known: Known::new(),
            waiting: VecDeque::new(),
            away_until: None,
        };
        while !batch.reader.is_ready() && !batch.is_finished {
            if batch.rest.is_empty() && !batch.has_ended {
                let frame = tokio::time::timeout(IDLE, batch.body.next()).await;
                batch.arrived(frame.ok()).map_err(|Cut| Refusal::Malformed)?;
            } else {
                // A header row yields no line yet.
                let inputs = batch.read()?;
                batch.hand_in(inputs).await;
            }
        }
        Ok(batch)
    }

    /// The next answers, a line each; `None` when all are given.
    pub async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        loop {
            let is_read = self.has_ended && self.is_finished;
            if is_read && self.waiting.is_empty() {
                return None;
            }
            if is_read || self.waiting.len() >= MOST_CHUNKS {
                settle(self.waiting.front_mut()).await;
                return Some(Ok(self.answer_first()));
            }
            if self.rest.is_empty() && !self.has_ended {
                let is_waiting = !self.waiting.is_empty();
                let frame = tokio::select! {
                    frame = tokio::time::timeout(IDLE, self.body.next()) => frame.ok(),
                    () = settle(self.waiting.front_mut()), if is_waiting => {
                        return Some(Ok(self.answer_first()));
                    }
                };
                if let Err(cut) = self.arrived(frame) {
                    return Some(Err(cut));
                }
                continue;
            }
            // The header row was read when the batch was opened.
            let Ok(inputs) = self.read() else { return Some(Err(Cut)) };
            self.hand_in(inputs).await;
        }
    }

    /// How many of the lines answered so far an earlier sending of this batch had logged.
    pub fn logged_before(&self) -> u64 {
        self.logged_before
    }

    /// Takes a frame of the body; none came in time where there is no `frame`.
    fn arrived(&mut self, frame: Option<Option<Result<Bytes, E>>>) -> Result<(), Cut> {
        match frame {
            Some(Some(Ok(bytes))) => self.rest = bytes,
            Some(None) => self.has_ended = true,
            Some(Some(Err(_))) | None => {
                self.has_ended = true;
                self.is_finished = true;
                return Err(Cut);
            }
        }
        Ok(())
    }

    /// Reads at most a chunk of what has arrived.
    fn read(&mut self) -> Result<Vec<Input>, WrongColumn> {
        let mut inputs = Vec::new();
        if self.rest.is_empty() {
            self.is_finished = true;
            self.reader.finish(&mut inputs)?;
        } else {
            let taken = self.reader.feed(&self.rest, &mut inputs)?;
            self.rest.advance(taken);
        }
        Ok(inputs)
    }

    async fn hand_in(&mut self, inputs: Vec<Input>) {
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return };
        let logged = self.lines_logged_before(first.line, last.line).await;
        let mut chunk = Vec::with_capacity(inputs.len());
        for Input { line, given } in inputs {
            let given = given.map(|mut parameters| {
                parameters.forget_wait();
                parameters
            });
            let answer = match &logged {
                Err(refusal) => Answer::Known(Err(*refusal)),
                Ok(logged) => match logged.binary_search_by_key(&line, |(line, _)| *line) {
                    Ok(place) => Answer::Known(Ok(Inserted::Replay(logged[place].1))),
                    Err(_) => self.hand_in_line(line, given).await,
                },
            };
            chunk.push((line, answer));
        }
        self.waiting.push_back(Chunk(chunk));
    }

    /// Lines that an earlier sending of this batch logged: they are answered so even where they would be refused now.
    async fn lines_logged_before(&mut self, first: i64, last: i64) -> Result<Vec<(i64, MessageId)>, Refusal> {
        if !self.wanted.may_be_repeated {
            return Ok(Vec::new());
        }
        if self.is_away() {
            return Err(Refusal::Unavailable);
        }
        self.ingest.store.batch_lines(self.number, first, last).await.map_err(unavailable)
    }

    fn is_away(&self) -> bool {
        self.away_until.is_some_and(|until| Instant::now() < until)
    }

    async fn hand_in_line(&mut self, line: i64, given: Result<Parameters, Refusal>) -> Answer {
        let handed_in = match given {
            Err(refusal) => Err(refusal),
            Ok(_) if self.is_away() => Err(Refusal::Unavailable),
            Ok(parameters) => match self.check(&parameters).await {
                Ok(mut message) => {
                    message.once = Some(Once::Line(BatchLine { batch: self.number, line }));
                    self.ingest.acceptor.hand_in(message).await
                }
                Err(refusal) => Err(refusal),
            },
        };
        if handed_in.as_ref().err() == Some(&Refusal::Unavailable) && !self.is_away() {
            self.away_until = Some(Instant::now() + AWAY);
        }
        handed_in.map_or_else(|refusal| Answer::Known(Err(refusal)), Answer::Awaited)
    }

    /// The checks of a single request, in their order; what has to be looked up is remembered.
    async fn check(&mut self, parameters: &Parameters) -> Result<NewMessage, Refusal> {
        let account = self.wanted.id;
        self.known.account(&self.ingest, account, &self.wanted.token).await?;
        let class = match parameters.get("class") {
            Some(Given::WrongType) => Err(Refusal::InvalidParameter("class")),
            _ => match parameters.text("class") {
                Some(class) => class.parse().map_err(|_| Refusal::InvalidParameter("class")),
                None => self.known.class(&self.ingest, account, validate::app_id(parameters)?).await,
            },
        };
        let checked = validate::check(parameters, class.unwrap_or(Class::Messenger))?;
        let class = class?;
        self.known.usable(&self.ingest, account, checked.line, class).await?;
        if let Some(cp_id) = &checked.cp_id {
            self.known.campaign(&self.ingest, account, cp_id).await?;
        }
        let httpdup = checked.httpdup;
        Ok(NewMessage { submission: self.ingest.submission(account, class, checked), once: None, httpdup })
    }

    /// Writes the answers of the first chunk, which are all known.
    fn answer_first(&mut self) -> Bytes {
        let mut text = String::new();
        for (line, answer) in self.waiting.pop_front().map(|chunk| chunk.0).unwrap_or_default() {
            let refusal = match answer {
                Answer::Known(Ok(inserted @ (Inserted::New(id) | Inserted::Replay(id)))) => {
                    self.logged_before += u64::from(matches!(inserted, Inserted::Replay(_)));
                    text.push_str(&format!("{{\"line\":{line},\"cdls_id\":{}}}\n", id.0));
                    continue;
                }
                Answer::Known(Ok(Inserted::Duplicate)) => Refusal::Duplicate,
                Answer::Known(Ok(Inserted::KeyReused)) => Refusal::KeyReused,
                Answer::Known(Err(refusal)) => refusal,
                Answer::Awaited(_) => Refusal::Unavailable,
            };
            if refusal == Refusal::Unavailable && !self.is_away() {
                self.away_until = Some(Instant::now() + AWAY);
            }
            METRICS.ingest.refused(refusal.code());
            let status = json!(refusal.text());
            text.push_str(&format!(
                "{{\"line\":{line},\"status\":{status},\"status_code\":{}}}\n",
                refusal.code()
            ));
        }
        text.into()
    }
}

/// Waits until every answer of a chunk is known. What was awaited stays known if this is cancelled.
async fn settle(chunk: Option<&mut Chunk>) {
    let Some(chunk) = chunk else { return };
    for (_, answer) in &mut chunk.0 {
        if let Answer::Awaited(verdict) = answer {
            let verdict = verdict.await.unwrap_or(Err(Refusal::Unavailable));
            *answer = Answer::Known(verdict);
        }
    }
}
