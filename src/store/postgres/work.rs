//! Work as dispatch reads it, with its ready rows: mostly one statement, as the wanted rows are nearly always
//! in the range of the log that was read last. Rows of other ranges are read afterwards.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use sqlx::postgres::PgRow;

use super::error::failed;
use super::log::ranges::{Range, is_missing, range_of, unless_missing};
use super::parameters::partition_of;
use super::pool::Pool;
use super::rows::{self, ready_columns};
use crate::channel::Medium;
use crate::domain::{LineId, WorkId};
use crate::store::{Flow, FlowPage, FlowRead, Position, StoreError, WorkRead};

/// The state between reads.
pub struct ReadState {
    /// An id of the range that was read last; negative before the first read.
    last: AtomicI64,
    unreadable: Mutex<HashSet<WorkId>>,
}

impl Default for ReadState {
    fn default() -> ReadState {
        ReadState { last: AtomicI64::new(-1), unreadable: Mutex::default() }
    }
}

impl ReadState {
    /// Note work with rows that this version cannot read. Without the note such work looks ended once its
    /// other rows have; it is left to a later version.
    fn leave(&self, work: WorkId, error: &StoreError) {
        let mut unreadable = self.unreadable.lock();
        if unreadable.insert(work) {
            rows::skipped(error);
        }
    }

    /// Note work that can be read again.
    fn can_read(&self, picked: &[PickedWork]) {
        let mut unreadable = self.unreadable.lock();
        if !unreadable.is_empty() {
            for picked in picked.iter().filter(|picked| !picked.is_partial) {
                unreadable.remove(&picked.read.position.work);
            }
        }
    }

    /// Return the ended work that this version can read to the end, and may remove.
    pub fn removable(&self, ended: &[WorkId]) -> Vec<WorkId> {
        let unreadable = self.unreadable.lock();
        ended.iter().copied().filter(|work| !unreadable.contains(work)).collect()
    }
}

/// Whether a row `c` of the log is ready in work `p`.
macro_rules! is_ready {
    () => {
        "(c.status = 'PENDING' or p.again and c.status = 'RETRY')
         and not (p.again and exists (select from cdls_open o where o.cdls_id = c.cdls_id))"
    };
}

/// The picked work, with its rows of one range. Ids are returned where others may be of another range.
macro_rules! with_rows {
    ($picked:expr) => {
        concat!(
            $picked,
            "select p.read_no, p.found, p.work_id, p.first_id, p.again, p.v8l_id as w_line, p.priority as w_lane,
                    p.media as w_media, p.campaign as w_campaign,
                    case when p.ids[1] < {first} or p.ids[cardinality(p.ids)] > {last} then p.ids end as elsewhere, ",
            ready_columns!(),
            " from picked p left join lateral (select * from cdls{range} c where {wanted} and ",
            is_ready!(),
            ") as c on true order by p.read_no, p.first_id, p.work_id, c.cdls_id"
        )
    };
}

const READ_WORK: &str = with_rows!(include_str!("sql/read_work.sql"));
const READ_FLOWS: &str = with_rows!(include_str!("sql/read_flows.sql"));

/// Ready rows by id ($1), of work $2 that is of a further turn or not ($3).
const READ_ROWS: &str = concat!(
    "select p.work_id, ",
    ready_columns!(),
    " from unnest($1::bigint[], $2::bigint[], $3::boolean[]) as p(id, work_id, again)
     cross join lateral (select * from cdls_{range} c where c.cdls_id = p.id and ",
    is_ready!(),
    ") as c"
);

/// The work to be read.
enum WorkSelector<'a> {
    Work(&'a [i64]),
    Flows(&'a [FlowRead]),
}

pub async fn read_work(
    pool: &Pool,
    read_state: &ReadState,
    work: &[WorkId],
) -> Result<Vec<WorkRead>, StoreError> {
    if work.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i64> = work.iter().map(|work| work.0).collect();
    let picked = read(pool, read_state, &WorkSelector::Work(&numbers)).await?;
    Ok(picked.into_iter().map(|picked| picked.read).collect())
}

pub async fn read_flows(
    pool: &Pool,
    read_state: &ReadState,
    reads: &[FlowRead],
) -> Result<Vec<FlowPage>, StoreError> {
    if reads.is_empty() {
        return Ok(Vec::new());
    }
    let picked = read(pool, read_state, &WorkSelector::Flows(reads)).await?;
    let mut pages: Vec<FlowPage> = reads.iter().map(|_| FlowPage { work: Vec::new(), more: false }).collect();
    let mut found = vec![0; reads.len()];
    for picked in picked {
        let place = (picked.read_no - 1) as usize;
        if let Some(page) = pages.get_mut(place) {
            found[place] = picked.found;
            page.work.push(picked.read);
        }
    }
    for ((page, read), found) in pages.iter_mut().zip(reads).zip(found) {
        page.more = found > page.work.len() || (found > 0 && found >= read.limit as usize);
    }
    Ok(pages)
}

impl WorkSelector<'_> {
    /// Read from a range of the log; without a range all rows are elsewhere.
    async fn fetch(&self, pool: &Pool, range: Option<Range>) -> Result<Vec<PgRow>, sqlx::Error> {
        match self {
            WorkSelector::Work(numbers) => {
                let statement = on_range(READ_WORK, range);
                sqlx::query(&statement).bind(numbers).fetch_all(pool).await
            }
            WorkSelector::Flows(reads) => {
                let statement = on_range(READ_FLOWS, range);
                let after = |of: fn(&Position) -> i64| -> Vec<i64> {
                    reads.iter().map(|read| read.after.as_ref().map_or(-1, of)).collect()
                };
                sqlx::query(&statement)
                    .bind(reads.iter().map(|read| partition_of(read.flow.line)).collect::<Vec<_>>())
                    .bind(reads.iter().map(|read| read.flow.line.0).collect::<Vec<_>>())
                    .bind(reads.iter().map(|read| read.flow.lane.as_str()).collect::<Vec<_>>())
                    .bind(reads.iter().map(|read| read.flow.medium == Medium::Media).collect::<Vec<_>>())
                    .bind(reads.iter().map(|read| read.flow.campaign.as_str()).collect::<Vec<_>>())
                    .bind(after(|position| position.first.0))
                    .bind(after(|position| position.work.0))
                    .bind(reads.iter().map(|read| i64::from(read.limit.max(1))).collect::<Vec<_>>())
                    .fetch_all(pool)
                    .await
            }
        }
    }
}

/// Work, as the statement picked it.
struct PickedWork {
    read_no: i64,
    found: usize,
    again: bool,
    read: WorkRead,
    /// The ids of the work, if some are not of the range that was read with it.
    elsewhere: Vec<i64>,
    /// Whether some of the work's rows cannot be read.
    is_partial: bool,
}

async fn read(
    pool: &Pool,
    read_state: &ReadState,
    wanted: &WorkSelector<'_>,
) -> Result<Vec<PickedWork>, StoreError> {
    let mut range = range_of(read_state.last.load(Ordering::Relaxed));
    let rows = match wanted.fetch(pool, range).await {
        Err(error) if is_missing(&error) && range.is_some() => {
            // The range was taken out of the log.
            range = None;
            wanted.fetch(pool, None).await.map_err(failed)?
        }
        rows => rows.map_err(failed)?,
    };
    let mut picked = gathered(read_state, &rows)?;
    read_elsewhere(pool, read_state, range, &mut picked).await?;
    read_state.can_read(&picked);
    if let Some(highest) = picked.iter().map(|picked| picked.read.position.first.0).max() {
        read_state.last.store(highest, Ordering::Relaxed);
    }
    Ok(picked)
}

/// Return the statement for a range, or for none.
fn on_range(statement: &str, range: Option<Range>) -> String {
    let (table, first, last, wanted) = match range {
        Some(range) => (format!("_{range}"), range.first(), range.last(), "c.cdls_id = any(p.ids)"),
        None => (String::new(), i64::MAX, -1, "false"),
    };
    statement
        .replace("{range}", &table)
        .replace("{first}", &first.to_string())
        .replace("{last}", &last.to_string())
        .replace("{wanted}", wanted)
}

fn gathered(read_state: &ReadState, rows: &[PgRow]) -> Result<Vec<PickedWork>, StoreError> {
    let mut picked: Vec<PickedWork> = Vec::new();
    for row in rows {
        let position = rows::position(row)?;
        if picked.last().is_none_or(|last| last.read.position.work != position.work) {
            match begun(row) {
                Ok(begun) => picked.push(begun),
                Err(error) => {
                    read_state.leave(position.work, &error);
                    continue;
                }
            }
        }
        if let Some(last) = picked.last_mut()
            && rows::get::<Option<i64>>(row, "cdls_id")?.is_some()
        {
            add(read_state, last, row);
        }
    }
    Ok(picked)
}

fn begun(row: &PgRow) -> Result<PickedWork, StoreError> {
    let flow = Flow {
        line: LineId(rows::get(row, "w_line")?),
        lane: rows::word(row, "w_lane")?,
        medium: rows::medium(rows::get(row, "w_media")?),
        campaign: rows::get(row, "w_campaign")?,
    };
    Ok(PickedWork {
        read_no: rows::get(row, "read_no")?,
        found: rows::get::<i64>(row, "found")? as usize,
        again: rows::get(row, "again")?,
        read: WorkRead { position: rows::position(row)?, flow, rows: Vec::new() },
        elsewhere: rows::get::<Option<Vec<i64>>>(row, "elsewhere")?.unwrap_or_default(),
        is_partial: false,
    })
}

fn add(read_state: &ReadState, picked: &mut PickedWork, row: &PgRow) {
    let work = picked.read.position.work;
    match rows::ready(row, work) {
        Ok(ready) => picked.read.rows.push(ready),
        Err(error) => {
            picked.is_partial = true;
            read_state.leave(work, &error);
        }
    }
}

async fn read_elsewhere(
    pool: &Pool,
    read_state: &ReadState,
    read: Option<Range>,
    picked: &mut [PickedWork],
) -> Result<(), StoreError> {
    let mut wanted: BTreeMap<Range, Vec<(i64, i64, bool)>> = BTreeMap::new();
    for work in picked.iter() {
        for id in &work.elsewhere {
            if let Some(range) = range_of(*id).filter(|range| Some(*range) != read) {
                wanted.entry(range).or_default().push((*id, work.read.position.work.0, work.again));
            }
        }
    }
    for (range, wanted) in wanted {
        let statement = READ_ROWS.replace("{range}", &range.to_string());
        let found = sqlx::query(&statement)
            .bind(wanted.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
            .bind(wanted.iter().map(|(_, work, _)| *work).collect::<Vec<_>>())
            .bind(wanted.iter().map(|(.., again)| *again).collect::<Vec<_>>())
            .fetch_all(pool)
            .await;
        let places: BTreeMap<WorkId, usize> =
            picked.iter().enumerate().map(|(place, work)| (work.read.position.work, place)).collect();
        for row in unless_missing(found)? {
            if let Some(place) = places.get(&WorkId(rows::get(&row, "work_id")?)) {
                add(read_state, &mut picked[*place], &row);
            }
        }
    }
    picked.iter_mut().for_each(|picked| picked.read.rows.sort_unstable_by_key(|row| row.id));
    Ok(())
}
