//! The changes that a batch of events demands, grouped by kind. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use time::OffsetDateTime;

use crate::channel::Class;
use crate::domain::LineId;
use crate::store::{BLOCKED_PAUSE, Enforced, InboundEvent, LineOfPage, Receipt, Receipted};
use crate::text::redact;
use crate::webhooks::echoes::HeardEcho;
use crate::webhooks::event::{Action, Event, EventKind};

/// A row is of a watermark if its call began at most so much later: the two clocks are not the same.
const TOLERANCE: Duration = Duration::from_millis(100);

/// The longest reason of Meta that is kept, in characters.
const MAX_REASON_CHARS: usize = 300;

/// A warning of Meta to the account of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Warning {
    pub(super) line: LineId,
    pub(super) reason: String,
}

/// The changes of a batch.
#[derive(Default)]
pub(super) struct Changes<'a> {
    pub(super) inbound: Vec<InboundEvent>,
    pub(super) echoes: Vec<HeardEcho<'a>>,
    pub(super) receipts: Vec<Receipt>,
    pub(super) enforced: Vec<Enforced>,
    pub(super) warnings: Vec<Warning>,
    /// Events of accounts that no line of their app has.
    pub(super) without_line: u64,
}

/// The lines of each Page or Instagram account.
struct LinesOfPages<'a>(HashMap<(Class, &'a str), Vec<&'a LineOfPage>>);

impl<'a> LinesOfPages<'a> {
    fn of(lines: &'a [LineOfPage]) -> LinesOfPages<'a> {
        let mut of_pages: HashMap<(Class, &str), Vec<&LineOfPage>> = HashMap::new();
        for line in lines {
            of_pages.entry((line.class, line.page.as_str())).or_default().push(line);
        }
        LinesOfPages(of_pages)
    }

    fn get<'s>(&'s self, event: &'s Event) -> &'s [&'a LineOfPage] {
        self.0.get(&(event.object.class(), event.account.as_str())).map(Vec::as_slice).unwrap_or_default()
    }
}

impl<'a> Changes<'a> {
    /// Group the events. An event goes to each line of its account; `now` stands for a time that an event lacks, and for
    /// one to come.
    pub(super) fn of(batch: &'a [Event], lines: &[LineOfPage], now: OffsetDateTime) -> Changes<'a> {
        let lines = LinesOfPages::of(lines);
        let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
        let mut changes = Changes::default();
        for event in batch {
            let of_event: Vec<&LineOfPage> =
                lines.get(event).iter().copied().filter(|line| may_change(event, line)).collect();
            let is_of_line = !matches!(event.kind, EventKind::Unknown(_));
            changes.without_line += u64::from(is_of_line && of_event.is_empty());
            if let Some(echo) = heard(event).filter(|_| !of_event.is_empty()) {
                changes.echoes.push(echo);
            }
            let at = time(event.at, now);
            for line in of_event {
                changes.add(event, line, at, now);
            }
        }
        // Meta repeats events, and often within a moment.
        let mut seen = HashSet::new();
        changes.receipts.retain(|receipt| seen.insert(receipt.clone()));
        changes
    }

    fn add(&mut self, event: &Event, line: &LineOfPage, at: OffsetDateTime, now: OffsetDateTime) {
        match &event.kind {
            EventKind::Delivery { dest, mids, watermark } => {
                self.add_receipts(line, dest, receipted(mids, *watermark, now), at, false);
            }
            EventKind::Read { dest, mids, watermark } => {
                self.add_receipts(line, dest, receipted(mids, *watermark, now), at, true);
            }
            EventKind::Inbound { dest, .. } => {
                self.inbound.push(InboundEvent { line: line.line, dest: dest.clone(), at });
            }
            EventKind::Enforcement { action, reason } => {
                let reason = reason.as_deref().map(|reason| redact(reason, MAX_REASON_CHARS));
                self.add_enforcement(line.line, *action, reason, at);
            }
            EventKind::Echo { .. } | EventKind::Unknown(_) => {}
        }
    }

    fn add_receipts(
        &mut self,
        line: &LineOfPage,
        dest: &str,
        receipted: Vec<Receipted>,
        at: OffsetDateTime,
        is_read: bool,
    ) {
        let receipt =
            |of| Receipt { account: line.account, line: line.line, dest: dest.to_owned(), of, at, is_read };
        self.receipts.extend(receipted.into_iter().map(receipt));
    }

    fn add_enforcement(&mut self, line: LineId, action: Action, reason: Option<String>, at: OffsetDateTime) {
        match action {
            Action::Warning => self.warnings.push(Warning { line, reason: reason.unwrap_or_default() }),
            Action::Block => {
                let pause = Some(pause(reason.as_deref()));
                self.enforced.push(Enforced { line, at, reason, pause });
            }
            Action::Unblock => self.enforced.push(Enforced { line, at, reason, pause: None }),
        }
    }
}

/// Whether an event may change a line: the holder of one app's secret signs for the lines of that app, and for lines that
/// name no app. The secret of the settings signs for all.
fn may_change(event: &Event, line: &LineOfPage) -> bool {
    event.app.is_none() || line.app.is_none() || event.app == line.app
}

/// Return the messages of a receipt. A watermark beside ids may be later than the call of a message that is not among them.
fn receipted(mids: &[String], watermark: Option<i64>, now: OffsetDateTime) -> Vec<Receipted> {
    if mids.is_empty() {
        let up_to = watermark.map(|watermark| (time(watermark, now) + TOLERANCE).min(now));
        up_to.map(Receipted::UpTo).into_iter().collect()
    } else {
        mids.iter().cloned().map(Receipted::Message).collect()
    }
}

/// Return the reason of the pause of a blocked account, with the remedy.
fn pause(reason: Option<&str>) -> String {
    let words = reason.filter(|reason| !reason.is_empty());
    let words = words.map(|words| format!(" ({words})")).unwrap_or_default();
    format!(
        "{BLOCKED_PAUSE}{words}: appeal in the Page's support inbox; the line resumes when Meta lifts the block, or with \
         `line resume`"
    )
}

fn heard(event: &Event) -> Option<HeardEcho<'_>> {
    let EventKind::Echo { dest, mid, metadata, text, .. } = &event.kind else { return None };
    Some(HeardEcho {
        class: event.object.class(),
        account: &event.account,
        dest,
        mid,
        metadata: metadata.as_deref(),
        text: text.as_deref(),
        at_ms: event.at,
    })
}

/// Return a time of Meta, which is never to come here.
fn time(milliseconds: i64, now: OffsetDateTime) -> OffsetDateTime {
    let told = OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000);
    told.ok().filter(|_| milliseconds > 0).map_or(now, |told| told.min(now))
}

#[cfg(test)]
mod tests;
