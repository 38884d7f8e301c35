//! The queue's fixtures: rows, and work as it is read.

mod aside;
mod claims;
mod closing;
mod order;
mod reading;
mod recipient;
mod rows;
mod work_ends;

use super::rows::LineQueue;
use crate::channel::{Medium, MessageKind};
use crate::dispatch::memory::RowMemory;
use crate::domain::{AccountId, Lane, LineId, RowId, WorkId};
use crate::store::{Contact, FlowPage, Position, ReadyRow, WorkHead, WorkRead};

const LINE: LineId = LineId(7);

fn row(id: i64, dest: &str) -> ReadyRow {
    ReadyRow {
        id: RowId(id),
        work: WorkId(id),
        line: LINE,
        account: AccountId(1),
        lane: Lane::High,
        kind: MessageKind::Text,
        cp_id: None,
        dest: dest.into(),
        mdata: "hello".into(),
        fence: 0,
        attempts: 0,
        tries: 0,
        valid_for: time::Duration::hours(1),
        waiter: None,
        contact: Contact::default(),
    }
}

fn bulk(id: i64, dest: &str, campaign: &str) -> ReadyRow {
    ReadyRow { lane: Lane::Bulk, cp_id: Some(campaign.into()), ..row(id, dest) }
}

/// Return work with the number of its first row.
fn work(rows: Vec<ReadyRow>) -> WorkRead {
    let first = rows[0].id;
    let position = Position { first, work: WorkId(first.0) };
    let flow = rows[0].flow();
    WorkRead {
        position,
        flow,
        rows: rows.into_iter().map(|row| ReadyRow { work: position.work, ..row }).collect(),
    }
}

fn head(read: &WorkRead) -> WorkHead {
    WorkHead { position: read.position, flow: read.flow.clone(), rows: read.rows.len() as u32 }
}

fn empty() -> LineQueue {
    LineQueue::new(RowMemory::of(u64::MAX))
}

/// Build a queue with work of one row each.
fn queue(rows: impl IntoIterator<Item = ReadyRow>) -> LineQueue {
    let mut queue = empty();
    rows.into_iter().for_each(|row| give(&mut queue, row));
    queue
}

fn give(queue: &mut LineQueue, row: ReadyRow) {
    let read = work(vec![row]);
    assert_eq!(queue.read_work(read.position.work, Some(read)), None);
}

fn page(work: Vec<WorkRead>, more: bool) -> FlowPage {
    FlowPage { work, more }
}

fn take(queue: &mut LineQueue, count: usize) -> Vec<i64> {
    std::iter::from_fn(|| queue.next(Medium::Text)).take(count).map(|row| row.id.0).collect()
}

/// Return the row in other work: it was tried, and is due again.
fn again(id: i64, number: i64) -> WorkRead {
    let read = work(vec![ReadyRow { fence: 1, attempts: 1, ..row(id, "ann") }]);
    let position = Position { work: WorkId(number), ..read.position };
    WorkRead {
        position,
        rows: read.rows.into_iter().map(|row| ReadyRow { work: position.work, ..row }).collect(),
        ..read
    }
}
