//! Outages of Graph: what the breaker hears, and what its states mean for the lines.
//!
//! An open breaker is part of pacing, for all lines at once: rows are not claimed, those claimed are given back, and no
//! attempts are spent. The decision is `policy::breaker`'s.

use rand::Rng;
use tokio::time::Instant;

use super::Dispatcher;
use crate::dispatch::send::Ticket;
use crate::message::BreakerState;
use crate::policy::breaker::{Health, Heard};

impl Dispatcher {
    /// A call ended.
    pub(super) fn hear(&mut self, ticket: &Ticket, health: Option<Health>, now: Instant) {
        let heard = Heard { id: ticket.id(), begun: ticket.begun.into_std(), period: ticket.period, health };
        if self.breaker.heard(heard, now.into_std(), rand::rng().random()) {
            self.breaker_changed(now);
        }
    }

    /// Suspects a host that answers nothing, and tries a call again when the breaker has been open for long enough.
    pub(super) fn tick_breaker(&mut self, now: Instant) {
        if self.breaker.tick(now.into_std()) {
            self.breaker_changed(now);
        }
    }

    fn breaker_changed(&mut self, now: Instant) {
        let state = self.breaker.state();
        match state {
            BreakerState::Open => {
                let rest = self.breaker.wakes_at().map(|until| until.duration_since(now.into_std()));
                tracing::warn!(?rest, "calls to Graph keep failing: breaker open, sending stopped");
            }
            BreakerState::Stalled => {
                tracing::info!("Graph answers no call in flight: breaker stalled, one new call at a time");
            }
            BreakerState::HalfOpen => tracing::info!("breaker half-open: trying one call"),
            BreakerState::Closed => tracing::info!("Graph answers again: breaker closed"),
        }
        self.breaker_state.send_replace(state);
        self.dirty.extend(self.lines.keys());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dispatch::Event;
    use crate::dispatch::dispatcher::fixture::Fixture;
    use crate::dispatch::recorder::Entry;
    use crate::message::{AccountId, Class, Lane, LineId, MessageId, MessageKind, WorkId};
    use crate::policy::breaker::{FIRST_REST, TRIPS_AFTER};
    use crate::store::{LineRecord, Position, ReadyRow, WorkRead};

    fn row(line: i64, kind: MessageKind) -> ReadyRow {
        ReadyRow {
            id: MessageId(line),
            work: WorkId(line),
            line: LineId(line),
            account: AccountId(1),
            lane: Lane::High,
            kind,
            cp_id: None,
            dest: "2531".into(),
            mdata: "hello".into(),
            fence: 0,
            attempts: 0,
            tries: 0,
            valid_for: time::Duration::HOUR,
            waiter: None,
        }
    }

    fn work_of(row: ReadyRow) -> WorkRead {
        let position = Position { first: row.id, work: row.work };
        WorkRead { position, flow: row.flow(), rows: vec![row] }
    }

    fn record(line: i64) -> LineRecord {
        LineRecord {
            id: LineId(line),
            account: AccountId(1),
            name: None,
            class: Class::Messenger,
            active: true,
            account_active: true,
            page_token: Some("EAA".into()),
            page_id: Some("1".into()),
            instagram_account_id: None,
            rate_text: None,
            rate_media: None,
            paused_until: None,
            pause_left: None,
            pause_reason: None,
        }
    }

    /// Opens the breaker, and lets its rest pass.
    fn trip(dispatcher: &mut Dispatcher) {
        for id in 1..=TRIPS_AFTER as i64 {
            let begun = std::time::Instant::now();
            let period = dispatcher.breaker.begun(begun);
            let health = Some(Health::Failing);
            dispatcher.breaker.heard(Heard { id: MessageId(-id), begun, period, health }, begun, 0.5);
        }
        assert_eq!(dispatcher.breaker.state(), BreakerState::Open);
        dispatcher.tick_breaker(Instant::now() + FIRST_REST * 2);
        assert_eq!(dispatcher.breaker.state(), BreakerState::HalfOpen);
    }

    fn claims(fixture: &mut Fixture) -> Vec<LineId> {
        std::iter::from_fn(|| fixture.entries.try_recv().ok())
            .filter_map(|entry| match entry {
                Entry::Claim { line, .. } => Some(line),
                _ => None,
            })
            .collect()
    }

    #[rstest::rstest]
    #[case::although_the_media_of_others_waits(&[MessageKind::Text], &[LineId(9)])]
    #[case::and_media_where_no_text_waits(&[], &[LineId(1)])]
    #[tokio::test]
    async fn a_trial_is_a_text(#[case] texts: &[MessageKind], #[case] expected: &[LineId]) {
        let mut fixture = Fixture::new();
        let dispatcher = &mut fixture.dispatcher;
        trip(dispatcher);
        let media = if texts.is_empty() { 1..=1 } else { 1..=8 };
        let rows: Vec<ReadyRow> = media
            .map(|line| row(line, MessageKind::Video))
            .chain(texts.iter().map(|kind| row(9, *kind)))
            .collect();
        let partitions: Vec<_> = rows.iter().map(|row| row.line.partition()).collect();
        let until = Instant::now() + Duration::from_secs(3_600);
        dispatcher.send_until.set(&partitions.iter().copied().collect(), until);
        let records = rows.iter().map(|row| record(row.line.0)).collect();
        dispatcher.handle(Event::Gained {
            at: Instant::now(),
            partitions,
            held: Vec::new(),
            claims: Vec::new(),
        });
        let asked = rows.iter().map(|row| (row.line, row.work)).collect();
        let read = rows.into_iter().map(work_of).collect();
        dispatcher.handle(Event::WorkRead { asked, read });
        dispatcher.handle(Event::Lines { asked: Vec::new(), records, pause_written: false });
        dispatcher.pump();
        assert_eq!(claims(&mut fixture), expected);
    }
}
