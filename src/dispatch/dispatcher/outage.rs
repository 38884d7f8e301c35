//! Outages of Graph: reports calls to the breaker, and applies its states to the lines.
//!
//! An open breaker is part of pacing, for all lines at once: rows are not claimed, claimed rows are given
//! back, and no attempts are spent. `policy::breaker` decides.

use rand::Rng;
use tokio::time::Instant;

use super::event_loop::Dispatcher;
use crate::dispatch::send::CallInFlight;
use crate::domain::BreakerState;
use crate::graph::Host;
use crate::policy::breaker::{CallReport, HostHealth};

impl Dispatcher {
    /// Report a call that ended.
    pub(super) fn report_health(
        &mut self,
        in_flight: &CallInFlight,
        health: Option<HostHealth>,
        now: Instant,
    ) {
        let report = CallReport {
            id: in_flight.id(),
            line: in_flight.line(),
            begun: in_flight.begun.into_std(),
            period: in_flight.period,
            health,
        };
        let breaker = self.breakers.of_mut(in_flight.host);
        if breaker.report(report, now.into_std(), rand::rng().random()) {
            self.breaker_changed(in_flight.host, now);
        }
    }

    /// Suspect a host that does not answer, and try a call again when the breaker has been open for long
    /// enough.
    pub(super) fn tick_breaker(&mut self, now: Instant) {
        for host in Host::ALL {
            if self.breakers.of_mut(host).tick(now.into_std()) {
                self.breaker_changed(host, now);
            }
        }
    }

    fn breaker_changed(&mut self, host: Host, now: Instant) {
        let (breaker, host) = (self.breakers.of(host), host.key());
        match breaker.state() {
            BreakerState::Open => {
                let rest = breaker.wakes_at().map(|until| until.duration_since(now.into_std()));
                let rest_seconds = rest.map(|rest| rest.as_secs_f64());
                tracing::warn!(
                    host,
                    rest_seconds,
                    "calls to Graph keep failing: breaker open, sending stopped"
                );
            }
            BreakerState::Stalled => {
                tracing::info!(
                    host,
                    "Graph answers no call in flight: breaker stalled, one new call at a time"
                );
            }
            BreakerState::HalfOpen => tracing::info!(host, "breaker half-open: trying one call"),
            BreakerState::Closed => tracing::info!(host, "Graph answers again: breaker closed"),
        }
        self.show_breaker();
        self.dirty.extend(self.lines.keys());
    }

    /// Show the state of the host that most lines in hand call: an outage of a host that few lines call is no reason to
    /// give the others away.
    pub(super) fn show_breaker(&self) {
        let (mut facebook, mut instagram) = (0_usize, 0_usize);
        for line in self.lines.values() {
            match line.host() {
                Host::Facebook => facebook += 1,
                Host::Instagram => instagram += 1,
            }
        }
        let main = if instagram > facebook { Host::Instagram } else { Host::Facebook };
        let state = self.breakers.of(main).state();
        self.breaker_state.send_if_modified(|shown| std::mem::replace(shown, state) != state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::{Class, MessageKind};
    use crate::dispatch::dispatcher::fixture::Fixture;
    use crate::dispatch::event::Event;
    use crate::dispatch::tasks::recorder::Entry;
    use crate::domain::{AccountId, Lane, LineId, RowId, WorkId};
    use crate::policy::breaker::{FIRST_REST, TRIPS_AFTER};
    use crate::store::{Contact, LineRecord, Position, ReadyRow, WorkRead};

    fn row(line: i64, kind: MessageKind) -> ReadyRow {
        ReadyRow {
            id: RowId(line),
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
            contact: Contact::default(),
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
            class: Class::MESSENGER,
            active: true,
            account_active: true,
            page_token: Some("EAA".into()),
            page_id: Some("1".into()),
            instagram_account_id: None,
            login: None,
            token_expires_at: None,
            token_version: 0,
            token_error: None,
            meta_app: None,
            app_secret: None,
            rate_text: None,
            rate_media: None,
            paused_until: None,
            pause_left: None,
            pause_reason: None,
        }
    }

    /// Open the breaker, and let its rest pass.
    fn trip(dispatcher: &mut Dispatcher) {
        for id in 1..=TRIPS_AFTER as i64 {
            let begun = std::time::Instant::now();
            let line = LineId(-1);
            let breaker = dispatcher.breakers.of_mut(Host::Facebook);
            let period = breaker.begun(line, begun);
            let health = Some(HostHealth::Failing);
            breaker.report(CallReport { id: RowId(-id), line, begun, period, health }, begun, 0.5);
        }
        assert_eq!(dispatcher.breakers.of(Host::Facebook).state(), BreakerState::Open);
        dispatcher.tick_breaker(Instant::now() + FIRST_REST * 2);
        assert_eq!(dispatcher.breakers.of(Host::Facebook).state(), BreakerState::HalfOpen);
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
    async fn trial_call_prefers_a_text(#[case] texts: &[MessageKind], #[case] expected: &[LineId]) {
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
