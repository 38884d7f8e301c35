use std::time::Duration;

use super::*;
use crate::broker::JobDelivery;
use crate::channel::{Medium, MessageKind};
use crate::dispatch::dispatcher::fixture::Fixture;
use crate::dispatch::dispatcher::work::head_of;
use crate::dispatch::tasks::reader::Request;
use crate::domain::{AccountId, Job, JobMessage, JobWork, Status, WorkId};

const LINE: LineId = LineId(1);

fn work(id: i64) -> JobWork {
    JobWork {
        work: WorkId(id),
        line: LINE,
        lane: Lane::High,
        medium: Medium::Text,
        campaign: String::new(),
        first: RowId(id),
        rows: 1,
        messages: Vec::new(),
    }
}

#[tokio::test]
async fn announced_work_is_read_after_the_first_scan() {
    let Fixture { mut dispatcher, requests: mut asked, .. } = Fixture::new();
    let partition = LINE.partition();
    let announce = |dispatcher: &mut Dispatcher, work| {
        let work = vec![work];
        dispatcher.take_jobs(JobDelivery::new(partition, Job { work, ..Job::empty() }, || {}));
    };
    let mut is_read =
        || std::iter::from_fn(|| asked.try_recv().ok()).any(|request| matches!(request, Request::Work(..)));

    dispatcher.handle(Event::Gained {
        at: Instant::now(),
        partitions: vec![partition],
        held: Vec::new(),
        claims: Vec::new(),
    });
    announce(&mut dispatcher, work(7));
    dispatcher.handle(Event::Work(vec![head_of(work(8))]));
    assert!(!is_read(), "older rows may wait");
    let before = Instant::now() - Duration::from_secs(1);
    dispatcher.handle(Event::Ready { began: Instant::now(), scanned: Vec::new(), flows: Vec::new() });
    dispatcher.handle(Event::Ready { began: before, scanned: vec![partition], flows: Vec::new() });
    announce(&mut dispatcher, work(9));
    assert!(!is_read(), "one scan was of other partitions, one began too early");
    dispatcher.handle(Event::Ready { began: Instant::now(), scanned: vec![partition], flows: Vec::new() });
    announce(&mut dispatcher, work(10));
    assert!(!is_read(), "the flow is read from its beginning, as work was announced during the scan");
    assert_eq!(dispatcher.line_or_new(LINE).queue.reads(LINE, |_| 16).len(), 1);
    announce(&mut dispatcher, JobWork { campaign: "spring".into(), ..work(11) });
    assert!(is_read());
}

fn message(id: i64) -> JobMessage {
    JobMessage {
        id: RowId(id),
        account: AccountId(1),
        kind: MessageKind::Text,
        dest: "2531".into(),
        mdata: "hello".into(),
        valid_ms: 60_000,
        waiter: None,
    }
}

#[tokio::test]
async fn carried_messages_are_read_only_behind_older_work() {
    let Fixture { mut dispatcher, requests: mut asked, .. } = Fixture::new();
    let partition = LINE.partition();
    dispatcher.handle(Event::Gained {
        at: Instant::now(),
        partitions: vec![partition],
        held: Vec::new(),
        claims: Vec::new(),
    });
    dispatcher.handle(Event::Ready { began: Instant::now(), scanned: vec![partition], flows: Vec::new() });
    let mut announce = |work: JobWork| {
        dispatcher.take_jobs(JobDelivery::new(partition, Job { work: vec![work], ..Job::empty() }, || {}));
        let read = std::iter::from_fn(|| asked.try_recv().ok()).find_map(|request| match request {
            Request::Work(_, work) => Some(work.0),
            _ => None,
        });
        (read, dispatcher.lines.get(&LINE).is_some_and(|line| line.queue.has_next(Medium::Text)))
    };
    assert_eq!(announce(JobWork { messages: vec![message(1)], ..work(1) }), (None, true));
    assert_eq!(announce(work(2)), (Some(2), true), "it is only named");
    assert_eq!(
        announce(JobWork { messages: vec![message(3)], ..work(3) }),
        (Some(3), true),
        "behind the second"
    );
}

#[tokio::test]
async fn repeated_job_keeps_a_retrys_recipient_held() {
    let Fixture { mut dispatcher, requests: mut asked, .. } = Fixture::new();
    let partition = LINE.partition();
    dispatcher.handle(Event::Gained {
        at: Instant::now(),
        partitions: vec![partition],
        held: Vec::new(),
        claims: Vec::new(),
    });
    dispatcher.handle(Event::Ready { began: Instant::now(), scanned: vec![partition], flows: Vec::new() });
    dispatcher.line_or_new(LINE).queue.hold(Lane::High, "2531", RowId(5));
    let job = Job { work: vec![JobWork { messages: vec![message(5)], ..work(5) }], ..Job::empty() };
    dispatcher.take_jobs(JobDelivery::new(partition, job, || {}));
    assert!(!dispatcher.line_or_new(LINE).queue.has_next(Medium::Text));
    let is_read =
        std::iter::from_fn(|| asked.try_recv().ok()).any(|request| matches!(request, Request::Work(..)));
    assert!(is_read);
}

#[tokio::test(start_paused = true)]
async fn cancelled_retry_frees_its_recipient() {
    let Fixture { mut dispatcher, requests: mut asked, .. } = Fixture::new();
    let partition = LINE.partition();
    let held = HeldRecipient {
        line: LINE,
        lane: Lane::High,
        dest: "2531".into(),
        by: RowId(5),
        status: Status::Retry,
        wait: Duration::from_secs(600),
    };
    dispatcher.handle(Event::Gained {
        at: Instant::now(),
        partitions: vec![partition],
        held: vec![held],
        claims: Vec::new(),
    });
    dispatcher.handle(Event::Ready { began: Instant::now(), scanned: vec![partition], flows: Vec::new() });
    let mut question = || {
        std::iter::from_fn(|| asked.try_recv().ok()).find_map(|request| match request {
            Request::StillHeld(ids) => Some(ids),
            _ => None,
        })
    };
    tokio::time::advance(Duration::from_secs(30)).await;
    dispatcher.ask_held(Instant::now());
    assert_eq!(question(), None, "nothing waits behind it");

    let job = Job { work: vec![JobWork { messages: vec![message(6)], ..work(6) }], ..Job::empty() };
    dispatcher.take_jobs(JobDelivery::new(partition, job, || {}));
    assert!(!dispatcher.line_or_new(LINE).queue.has_next(Medium::Text));
    tokio::time::advance(Duration::from_secs(30)).await;
    dispatcher.ask_held(Instant::now());
    assert_eq!(question(), Some(vec![RowId(5)]));
    dispatcher.handle(Event::StillHeld { asked: vec![RowId(5)], held: Vec::new() });
    assert!(dispatcher.line_or_new(LINE).queue.has_next(Medium::Text), "the log says that it has ended");
}

fn gained() -> Event {
    Event::Gained {
        at: Instant::now(),
        partitions: vec![LINE.partition()],
        held: Vec::new(),
        claims: Vec::new(),
    }
}

fn claimed(id: i64) -> ClaimedRow {
    ClaimedRow {
        id: RowId(id),
        line: LINE,
        lane: Lane::High,
        dest: "2531".into(),
        fence: 1,
        worker: "w".into(),
        attempts: 1,
        tries: 0,
        crashes: 0,
        valid_for: time::Duration::hours(1),
        age: Duration::ZERO,
        overdue: false,
        waiter: None,
    }
}

mod claim_without_a_call {
    use super::*;

    #[tokio::test]
    async fn of_this_worker_is_given_back() {
        let Fixture { mut dispatcher, mut entries, .. } = Fixture::new();
        dispatcher.handle(gained());
        dispatcher.handle(Event::Claimed(vec![claimed(1)]));
        assert!(matches!(entries.try_recv(), Ok(Entry::Change { change, .. }) if change.id == RowId(1)));
    }

    #[tokio::test]
    async fn excludes_a_call_that_just_ended() {
        let Fixture { mut dispatcher, mut entries, .. } = Fixture::new();
        dispatcher.handle(gained());
        let queue = &mut dispatcher.line_or_new(LINE).queue;
        queue.ended_with(RowId(1), 1);
        queue.hold(Lane::High, "2531", RowId(2));
        dispatcher.handle(Event::Claimed(vec![claimed(1)]));
        assert!(entries.try_recv().is_err());
        assert!(dispatcher.line_or_new(LINE).queue.is_held_by(Lane::High, "2531", RowId(2)));
    }
}

#[tokio::test]
async fn claims_of_a_line_lost_twice_end_one_by_one() {
    let Fixture { mut dispatcher, .. } = Fixture::new();
    let asked = dispatcher.abandoned.entry(RowId(1)).or_default();
    asked.extend([(1, Lane::High), (2, Lane::High)]);
    dispatcher.claims_answered(vec![
        ClaimAnswer { line: LINE, id: RowId(1), is_made: false },
        ClaimAnswer { line: LINE, id: RowId(1), is_made: false },
    ]);
    assert_eq!(dispatcher.reserved, 0);
    assert!(dispatcher.abandoned.is_empty());
}

#[tokio::test]
async fn work_beside_unnamed_work_waits_for_the_look() {
    let Fixture { mut dispatcher, requests: mut asked, .. } = Fixture::new();
    dispatcher.handle(gained());
    let partition = LINE.partition();
    dispatcher.handle(Event::Ready { began: Instant::now(), scanned: vec![partition], flows: Vec::new() });
    let job = Job { work: vec![work(3)], more: true, ..Job::empty() };
    dispatcher.take_jobs(JobDelivery::new(partition, job, || {}));
    assert!(
        !std::iter::from_fn(|| asked.try_recv().ok()).any(|request| matches!(request, Request::Work(..)))
    );
}
