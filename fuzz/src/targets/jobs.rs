//! Bodies of jobs and replies, as a queue holds them, and the column that names a row's waiter.
//!
//! Properties: what is written reads as the same; bytes of any kind are refused, or read as a job in its bounds that is
//! written and read again; reading holds a small multiple of the body's length; a job that is merged of any work is short
//! enough to be read.

use meta_dispatch::channel::{Medium, MessageKind};
use meta_dispatch::domain::{
    AccountId, ErrorKind, JOB_VERSION, Job, JobMessage, JobWork, Lane, LineId, MAX_JOB_WORK, Outcome, Reply,
    ReplyTo, RowId, Status, Waiter, WorkId,
};
use meta_dispatch::fuzzing::{read_job, read_reply};

use crate::memory::peak;
use crate::shape::note;
use crate::source::Source;

pub const WORDS: &[&str] = &[
    "{\"v\":2,\"work\":[]}",
    "{\"v\":2,\"work\":[[41,7,\"high\",false,\"\",1,2,[]]]}",
    "[1,1,\"text\",\"2531\",\"hi\",1000,null]",
    "\"bulk\"",
    "\"more\":true",
    "\"due\":true",
    "{\"ticket\":\"r1\",\"outcome\":{\"cdls_id\":7,\"status\":\"OK\",\"status_code\":200,\"message_id\":\"m_1\"}}",
    "\"error_kind\":\"expired\"",
    "\"detail\":",
    "amqp:{\"queue\":\"answers\"}",
    "cdls.reply.0198/7",
    "[[[[",
    "\"v\":3",
];

/// Bytes that reading holds at most: Rust's form of the shortest work and message is some twelve times as long as JSON's,
/// with the room of a vector that grows.
fn most_bytes(body: &[u8]) -> u64 {
    16 * 1024 + 32 * body.len() as u64
}

pub fn target(input: &[u8]) {
    let (job, held) = peak(|| read_job(input));
    assert!(held <= most_bytes(input), "{held} bytes for a job of {}", input.len());
    note(job.as_ref().map(|job| job.work.len().min(3)).map_err(std::mem::discriminant));
    if let Ok(job) = job {
        assert!(job.v == JOB_VERSION && job.work.len() <= MAX_JOB_WORK);
        comes_back(&job);
    }
    let (reply, held) = peak(|| read_reply(input));
    assert!(held <= most_bytes(input), "{held} bytes for a reply of {}", input.len());
    note(reply.as_ref().ok().map(|reply| reply.outcome.status));
    if let Ok(reply) = reply {
        reply_comes_back(&reply);
    }
    if let Some(waiter) = Waiter::read(&String::from_utf8_lossy(input)) {
        assert_eq!(Waiter::read(&waiter.column()), Some(waiter));
    }
    let mut source = Source::new(input);
    jobs_come_back(&mut source);
    reply_comes_back(&Reply { ticket: source.text(40), outcome: outcome(&mut source) });
    waiter_comes_back(&mut source);
}

fn comes_back(job: &Job) {
    let body = serde_json::to_vec(job).expect("a job is always JSON");
    let read = read_job(&body).unwrap_or_else(|error| panic!("a job of {} bytes: {error}", body.len()));
    assert_eq!(&read, job);
}

fn reply_comes_back(reply: &Reply) {
    let body = serde_json::to_vec(reply).expect("a reply is always JSON");
    assert_eq!(read_reply(&body).expect("a reply of the program"), *reply);
}

/// Announce work as a commit does, and read the jobs.
fn jobs_come_back(source: &mut Source<'_>) {
    // A commit may have far more work than an input describes.
    let times = if source.byte() == u8::MAX { 64 } else { 1 };
    let mut work: Vec<JobWork> = Vec::new();
    while !source.is_empty() && work.len() < 8 {
        work.push(job_work(source));
    }
    let described = work.len();
    let work = work.into_iter().cycle().take(described * times);
    for (partition, job) in Job::announcing(work, [LineId(1)], [LineId(2)]) {
        assert!(job.work.len() <= MAX_JOB_WORK);
        assert!(job.work.iter().all(|work| work.line.partition() == partition));
        comes_back(&job);
    }
}

fn job_work(source: &mut Source<'_>) -> JobWork {
    let line = LineId(source.number().saturating_abs());
    let message = job_message(source);
    // Messages of one piece of work are alike.
    let messages = vec![message; source.one_of(&[0, 1, 2, 64])];
    JobWork {
        work: WorkId(source.number()),
        line,
        lane: source.one_of(Lane::ALL),
        medium: source.one_of(Medium::ALL),
        campaign: source.text(128),
        first: RowId(source.number()),
        rows: source.number() as u32,
        messages,
    }
}

fn job_message(source: &mut Source<'_>) -> JobMessage {
    JobMessage {
        id: RowId(source.number()),
        account: AccountId(source.number()),
        kind: source.one_of(MessageKind::ALL),
        dest: format!("2{}", source.text(128)),
        mdata: format!("m{}", source.text(255)),
        valid_ms: source.number(),
        waiter: Some(source.text(255)).filter(|waiter| !waiter.is_empty()),
    }
}

fn outcome(source: &mut Source<'_>) -> Outcome {
    let optional = |source: &mut Source<'_>| Some(source.text(60)).filter(|text| !text.is_empty());
    Outcome {
        cdls_id: RowId(source.number()),
        status: source.one_of(Status::ALL),
        status_code: source.number() as i32,
        message_id: source.text(60),
        error_code: source.is_odd().then(|| source.number() as i32),
        error_subcode: source.is_odd().then(|| source.number() as i32),
        error_kind: source.is_odd().then(|| source.one_of(ErrorKind::ALL)),
        error_message: optional(source),
        detail: optional(source),
    }
}

fn waiter_comes_back(source: &mut Source<'_>) {
    let producer = Waiter::Producer(ReplyTo {
        queue: source.text(255),
        correlation_id: source.is_odd().then(|| source.text(255)),
        account: source.is_odd().then(|| AccountId(source.number())),
    });
    // An address is a queue of a process, and a ticket is a part of no path.
    let address = format!("cdls.reply.{}", source.text(40));
    let request = Waiter::Request { address, ticket: source.text(40).replace('/', "") };
    for waiter in [producer, request] {
        let column = waiter.column();
        assert!(matches!(waiter, Waiter::Request { .. }) || !column.contains('\0'), "{column:?}");
        assert_eq!(Waiter::read(&column), Some(waiter));
    }
}
