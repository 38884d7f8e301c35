//! A batch under way: its body is read, its items are checked and handed in, and their answers are written.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use secrecy::SecretString;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::accept::Admission;
use super::super::parameters::{ParameterValue, Parameters};
use super::super::{Ingest, validate};
use super::answers::{body_cut, logged_line, no_message, refused_line, wrong_class};
use super::frame::BodyFrame;
use super::items::{Item, ItemAnswer, ItemChunk, settle};
use super::lookups::LookupCache;
use super::read::{BatchInput, Reader};
use super::request::{BatchCounts, BatchRequest, BodyCut};
use crate::batch::{Recipient, Recipients};
use crate::channel::Class;
use crate::domain::{AccountId, RowId};
use crate::edge::{Refusal, Refused, Turn, unavailable};
use crate::metrics::METRICS;
use crate::store::{BatchItem, Idempotency, Inserted, NewMessage};
use crate::text::Utf8Body;

/// Chunks handed in whose answers are awaited; at this number, reading pauses.
const MAX_CHUNKS: usize = 4;
/// A client that sends nothing for this long is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// After an item could not be logged, the items behind it are refused for a moment without a try.
const STORE_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A batch under way.
pub struct Batch<S> {
    ingest: Arc<Ingest>,
    sender: BatchSender,
    number: i64,
    body: S,
    has_ended: bool,
    is_finished: bool,
    counts: BatchCounts,
    recipients: Recipients,
    is_once_per_dest: bool,
    utf8: Utf8Body,
    rest: Bytes,
    reader: Reader,
    lookups: LookupCache,
    waiting: VecDeque<ItemChunk>,
    /// Until this time items are refused with this refusal, without a try.
    refusing: Option<(Instant, Refusal)>,
    _turn: Turn,
}

/// The sender of a batch.
struct BatchSender {
    id: AccountId,
    token: SecretString,
    address: IpAddr,
    may_be_repeated: bool,
}

impl<S, E> Batch<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Open a batch, and read the header row of a CSV.
    pub async fn open(ingest: Arc<Ingest>, mut request: BatchRequest, body: S) -> Result<Batch<S>, Refused> {
        request.defaults.set_default("priority", "bulk");
        let opened =
            ingest.store.open_batch(request.account, &request.batch_id, ingest.idempotency_ttl).await;
        let mut batch = Batch {
            number: opened.map_err(unavailable)?,
            ingest,
            sender: BatchSender {
                id: request.account,
                token: request.token,
                address: request.address,
                may_be_repeated: request.is_named,
            },
            body,
            has_ended: false,
            is_finished: false,
            counts: BatchCounts::default(),
            recipients: Recipients::default(),
            is_once_per_dest: request.is_once_per_dest,
            utf8: Utf8Body::new(request.charset),
            rest: Bytes::new(),
            reader: Reader::new(request.format, request.csv, request.defaults),
            lookups: LookupCache::new(),
            waiting: VecDeque::new(),
            refusing: None,
            _turn: request.turn,
        };
        while !batch.reader.is_ready() && !batch.is_finished {
            if batch.rest.is_empty() && !batch.has_ended {
                let frame = tokio::time::timeout(IDLE_TIMEOUT, batch.body.next()).await;
                batch.arrived(BodyFrame::of(frame)).map_err(|BodyCut| body_cut())?;
            } else {
                // A header row yields no item yet.
                let inputs = batch.read()?;
                batch.hand_in(inputs).await;
            }
        }
        // A CSV without a header row.
        if batch.reader.is_ready() { Ok(batch) } else { Err(no_message()) }
    }

    /// Return the next answers, one an item; `None` when all are given.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyCut>> {
        loop {
            let is_read = self.has_ended && self.is_finished;
            if is_read && self.waiting.is_empty() {
                return None;
            }
            if is_read || self.waiting.len() >= MAX_CHUNKS {
                settle(self.waiting.front_mut()).await;
                return Some(Ok(self.answer_first()));
            }
            if self.rest.is_empty() && !self.has_ended {
                let is_waiting = !self.waiting.is_empty();
                let frame = tokio::select! {
                    frame = tokio::time::timeout(IDLE_TIMEOUT, self.body.next()) => BodyFrame::of(frame),
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
            let Ok(inputs) = self.read() else { return Some(Err(BodyCut)) };
            self.hand_in(inputs).await;
        }
    }

    pub fn counts(&self) -> BatchCounts {
        self.counts
    }

    /// Take a frame of the body.
    fn arrived(&mut self, frame: BodyFrame) -> Result<(), BodyCut> {
        match frame {
            BodyFrame::Data(bytes) => {
                let transcoded = match self.utf8.feed(&bytes) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(text) => Some(Bytes::from(text)),
                };
                self.rest = transcoded.unwrap_or(bytes);
            }
            BodyFrame::End => {
                self.has_ended = true;
                self.rest = self.utf8.finish().into();
            }
            BodyFrame::Broken | BodyFrame::TimedOut => {
                self.has_ended = true;
                self.is_finished = true;
                return Err(BodyCut);
            }
        }
        self.reader.set_charset(self.utf8.charset());
        Ok(())
    }

    /// Read at most a chunk of the bytes that have arrived.
    fn read(&mut self) -> Result<Vec<BatchInput>, Refused> {
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

    async fn hand_in(&mut self, inputs: Vec<BatchInput>) {
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return };
        let logged = self.items_logged_before(first.line, last.line).await;
        let mut chunk = Vec::with_capacity(inputs.len());
        for BatchInput { line, given } in inputs {
            let given = given.map(|mut parameters| {
                parameters.forget_wait();
                parameters
            });
            let note = given.as_ref().ok().and_then(Parameters::misspelled);
            self.counts.not_utf8 += given.as_ref().map_or(0, |parameters| parameters.guessed() as u64);
            let answer = match &logged {
                Err(refusal) => ItemAnswer::Known(Err((*refusal).into())),
                Ok(logged) => match logged.binary_search_by_key(&line, |(line, _)| *line) {
                    Ok(place) => {
                        self.remember(given.as_ref().ok().and_then(|parameters| self.recipient(parameters)));
                        ItemAnswer::Known(Ok(Inserted::Replay(logged[place].1)))
                    }
                    Err(_) => self.hand_in_item(line, given).await,
                },
            };
            chunk.push(Item { line, answer, note });
        }
        self.waiting.push_back(ItemChunk(chunk));
    }

    /// Return the items that an earlier sending of this batch logged: their answers stay the same even where
    /// the items would be refused now.
    async fn items_logged_before(&mut self, first: i64, last: i64) -> Result<Vec<(i64, RowId)>, Refusal> {
        if !self.sender.may_be_repeated {
            return Ok(Vec::new());
        }
        if let Some(refusal) = self.current_refusal() {
            return Err(refusal);
        }
        self.ingest.store.batch_items(self.number, first, last).await.map_err(unavailable)
    }

    /// Return the refusal of items that are not tried at this moment.
    fn current_refusal(&self) -> Option<Refusal> {
        self.refusing.filter(|(until, _)| Instant::now() < *until).map(|(_, refusal)| refusal)
    }

    /// Try no item for a moment after one that could not be logged.
    fn note_refusal(&mut self, refusal: Refusal) {
        if refusal.retry_after().is_some() && self.current_refusal().is_none() {
            self.refusing = Some((Instant::now() + STORE_RETRY_PAUSE, refusal));
        }
    }

    /// Return the recipient of a line, within its campaign and line.
    fn recipient(&self, parameters: &Parameters) -> Option<Recipient> {
        let text = |name| parameters.text(name).unwrap_or_default();
        let dest = parameters.text("dest")?;
        Some(self.recipients.recipient(text("cp_id"), text("app_id"), dest))
    }

    /// Count a line that is logged.
    fn remember(&mut self, recipient: Option<Recipient>) {
        let is_known = recipient.is_some_and(|recipient| self.recipients.remember(recipient));
        self.counts.duplicates += u64::from(is_known);
    }

    async fn hand_in_item(&mut self, line: i64, given: Result<Parameters, Refused>) -> ItemAnswer {
        let handed_in = match (given, self.current_refusal()) {
            (Err(refused), _) => Err(refused),
            (Ok(_), Some(refusal)) => Err(refusal.into()),
            (Ok(parameters), None) => self.hand_in_message(line, &parameters).await,
        };
        if let Err(refused) = &handed_in {
            self.note_refusal(refused.refusal);
        }
        handed_in.map_or_else(|refused| ItemAnswer::Known(Err(refused)), ItemAnswer::Awaited)
    }

    async fn hand_in_message(
        &mut self,
        line: i64,
        parameters: &Parameters,
    ) -> Result<oneshot::Receiver<Admission>, Refused> {
        let recipient = self.recipient(parameters);
        if self.is_once_per_dest && recipient.is_some_and(|recipient| self.recipients.is_known(recipient)) {
            return Err(Refused::parameter(
                "dest",
                "The recipient of this line stands in an earlier one: with `once_per_dest` it is logged once",
            ));
        }
        let mut message = self.check(parameters).await?;
        message.idempotency = Some(Idempotency::Item(BatchItem { batch: self.number, number: line }));
        let handed_in = self.ingest.acceptor.hand_in(message).await?;
        self.remember(recipient);
        Ok(handed_in)
    }

    /// Run the checks of a single request, in their order; look-ups are remembered.
    async fn check(&mut self, parameters: &Parameters) -> Result<NewMessage, Refused> {
        let account = self.sender.id;
        let BatchSender { token, address, .. } = &self.sender;
        self.lookups.account(&self.ingest, account, token, *address).await?;
        let class = match parameters.get("class") {
            Some(ParameterValue::WrongType(_)) => Err(wrong_class()),
            _ => match parameters.text("class") {
                Some(class) => class.parse().map_err(|_| wrong_class()),
                None => {
                    let line = validate::app_id(parameters)?;
                    self.lookups.class(&self.ingest, account, line).await.map_err(Refused::from)
                }
            },
        };
        let checked = validate::check(parameters, class.as_ref().map_or(Class::MESSENGER, |class| *class))?;
        let class = class?;
        self.lookups.usable(&self.ingest, account, checked.line, class).await?;
        if let Some(cp_id) = &checked.cp_id {
            self.lookups.campaign(&self.ingest, account, cp_id).await?;
        }
        let httpdup = checked.httpdup;
        Ok(NewMessage {
            submission: self.ingest.submission(account, class, checked),
            idempotency: None,
            httpdup,
        })
    }

    /// Write the answers of the first chunk, which are all known.
    fn answer_first(&mut self) -> Bytes {
        let mut text = String::new();
        for Item { line, answer, note } in self.waiting.pop_front().map(|chunk| chunk.0).unwrap_or_default() {
            self.counts.answered += 1;
            let refused: Refused = match answer {
                ItemAnswer::Known(Ok(inserted @ (Inserted::New(id) | Inserted::Replay(id)))) => {
                    self.counts.logged_before += u64::from(matches!(inserted, Inserted::Replay(_)));
                    text.push_str(&logged_line(line, id, note.as_deref()));
                    continue;
                }
                ItemAnswer::Known(Ok(Inserted::Duplicate)) => Refusal::Duplicate.into(),
                ItemAnswer::Known(Ok(Inserted::KeyReused)) => Refusal::KeyReused.into(),
                ItemAnswer::Known(Err(refused)) => refused,
                ItemAnswer::Awaited(_) => Refusal::Unavailable.into(),
            };
            self.note_refusal(refused.refusal);
            METRICS.ingest.refused(refused.code());
            text.push_str(&refused_line(line, &refused));
        }
        text.into()
    }
}
