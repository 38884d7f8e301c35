//! The line's fixtures: its record, its rows, and the answers that it learns from.

mod assets;
mod limits;
mod pauses;
mod permits;
mod rows;
mod sealed;
mod trials;

use std::time::Duration;

use tokio::time::Instant;

use super::actions::{LineActions, PermitBudget};
use super::actor::Line;
use crate::channel::{Class, MessageKind};
use crate::dispatch::memory::RowMemory;
use crate::domain::{AccountId, Lane, LineId, RowId, WorkId};
use crate::policy::classify::{PauseDemand, PauseTarget};
use crate::seal::KeyRing;
use crate::settings::{LimitSettings, Settings};
use crate::store::{Contact, LineRecord, Position, ReadyRow, WorkRead};

const HORIZON: Duration = Duration::from_millis(15);

fn record(rate_text: Option<u32>) -> LineRecord {
    LineRecord {
        id: LineId(7),
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
        rate_text,
        rate_media: Some(10),
        paused_until: None,
        pause_left: None,
        pause_reason: None,
    }
}

fn limits() -> LimitSettings {
    Settings::load(None).expect("defaults load").limits
}

fn line(record: &LineRecord) -> Line {
    let mut line = Line::new(LineId(7), RowMemory::of(u64::MAX));
    configure(&mut line, record);
    line
}

fn configure(line: &mut Line, record: &LineRecord) {
    line.configure(record, &limits(), &KeyRing::default(), false, Instant::now());
}

fn row(id: i64, kind: MessageKind) -> ReadyRow {
    ReadyRow {
        id: RowId(id),
        work: WorkId(id),
        line: LineId(7),
        account: AccountId(1),
        lane: Lane::High,
        kind,
        cp_id: None,
        dest: format!("d{id}"),
        mdata: "hello".into(),
        fence: 3,
        attempts: 0,
        tries: 0,
        valid_for: time::Duration::hours(1),
        waiter: None,
        contact: Contact::default(),
    }
}

/// Give the line work of one row.
fn give(line: &mut Line, row: ReadyRow) {
    let position = Position { first: row.id, work: row.work };
    line.queue.read_work(row.work, Some(WorkRead { position, flow: row.flow(), rows: vec![row] }));
}

fn pump(line: &mut Line, free: usize) -> LineActions {
    let mut actions = LineActions::default();
    line.pump(
        Instant::now(),
        HORIZON,
        PermitBudget { spare: free, room: free, media: true, ends: 64 },
        &mut actions,
    );
    actions
}

fn demand(first: u64) -> PauseDemand {
    PauseDemand {
        target: PauseTarget::Line,
        first: Duration::from_secs(first),
        cap: Duration::from_secs(first * 60),
        named: None,
        ends_with_trial: false,
        reason: "613".into(),
    }
}

fn refused_line() -> PauseDemand {
    PauseDemand {
        target: PauseTarget::Line,
        first: Duration::from_secs(1_800),
        cap: Duration::from_secs(4 * 3_600),
        named: None,
        ends_with_trial: true,
        reason: "190".into(),
    }
}
