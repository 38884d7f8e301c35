//! Messages whose assets are uploaded.

use std::sync::Arc;

use super::*;
use crate::channel::Medium;
use crate::dispatch::line::AssetAnswer;
use crate::domain::ErrorDetail;
use crate::settings::OnUnfetchable;
use crate::store::{AttachmentKey, Change, ChangeKind};

const URL: &str = "https://example.com/a.png";
const HOURS: Duration = Duration::from_secs(3_600);

/// Return a line whose limiter, drained at first, has filled.
async fn uploading(policy: OnUnfetchable) -> Line {
    let mut line = Line::new(LineId(7), RowMemory::of(u64::MAX)).with_assets(Some(policy));
    configure(&mut line, &record(None));
    tokio::time::sleep(Duration::from_secs(1)).await;
    line
}

fn image(id: i64) -> ReadyRow {
    ReadyRow { mdata: URL.into(), ..row(id, MessageKind::Image) }
}

fn key() -> AttachmentKey {
    AttachmentKey { line: LineId(7), kind: MessageKind::Image, url: URL.into() }
}

fn ready(id: &str) -> AssetAnswer {
    AssetAnswer::Ready { attachment_id: id.into(), left: HOURS }
}

fn unfetchable() -> AssetAnswer {
    let error = ErrorDetail { code: Some(100), subcode: Some(2018008), ..ErrorDetail::default() };
    AssetAnswer::Unfetchable { error, left: HOURS }
}

fn answer(line: &mut Line, answer: AssetAnswer) {
    line.asset_answered(&key(), answer, Instant::now());
}

/// Pump for two seconds, and begin each call that is claimed; return the ids that the calls name.
async fn calls(line: &mut Line) -> Vec<Option<String>> {
    let mut ids = Vec::new();
    for _ in 0..20 {
        let actions = pump(line, 10);
        for claimed in actions.claims {
            line.claim_answered(claimed.id, true);
        }
        ids.extend(actions.calls.iter().map(|call| call.attachment_id.as_deref().map(str::to_owned)));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_one_upload_and_name_its_id() {
    let mut line = uploading(OnUnfetchable::Refuse).await;
    for id in 1..=3 {
        give(&mut line, image(id));
    }
    give(&mut line, row(9, MessageKind::Text));
    let actions = pump(&mut line, 10);
    assert_eq!(actions.uploads.iter().map(|order| order.key.clone()).collect::<Vec<_>>(), [key()]);
    assert_eq!(actions.claims.iter().map(|row| row.id).collect::<Vec<_>>(), [RowId(9)], "the text goes on");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(pump(&mut line, 10).uploads.is_empty() && !line.queue.has_next(Medium::Media));
    answer(&mut line, ready("77"));
    assert_eq!(calls(&mut line).await.iter().flatten().count(), 3);
}

#[tokio::test(start_paused = true)]
async fn upload_counts_against_the_rate_of_media() {
    let mut line = uploading(OnUnfetchable::Refuse).await;
    give(&mut line, image(1));
    give(&mut line, ReadyRow { mdata: "https://example.com/b.png".into(), ..image(2) });
    assert_eq!(pump(&mut line, 10).uploads.len(), 1);
    assert!(pump(&mut line, 10).uploads.is_empty());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(pump(&mut line, 10).uploads.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_of_an_unfetchable_url_end() {
    let mut line = uploading(OnUnfetchable::Refuse).await;
    give(&mut line, image(1));
    pump(&mut line, 10);
    answer(&mut line, unfetchable());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let actions = pump(&mut line, 10);
    assert!(matches!(
        &actions.changes[..],
        [(Change { id: RowId(1), fence: 3, kind: ChangeKind::Refuse { error }, .. }, None)]
            if error.subcode == Some(2018008)
    ));
    assert!(actions.claims.is_empty());
}

#[tokio::test(start_paused = true)]
async fn held_messages_wait_and_the_answer_is_looked_at_again() {
    let mut line = uploading(OnUnfetchable::Hold).await;
    give(&mut line, image(1));
    pump(&mut line, 10);
    answer(&mut line, unfetchable());
    assert!(calls(&mut line).await.is_empty());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(pump(&mut line, 10).uploads.len(), 1);
    assert!(pump(&mut line, 10).uploads.is_empty(), "one question at a time");
    answer(&mut line, ready("77"));
    assert_eq!(calls(&mut line).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn given_up_upload_lets_messages_carry_the_url() {
    let mut line = uploading(OnUnfetchable::Hold).await;
    give(&mut line, image(1));
    pump(&mut line, 10);
    answer(&mut line, AssetAnswer::GivenUp);
    assert_eq!(calls(&mut line).await, [None]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    give(&mut line, image(2));
    assert_eq!(pump(&mut line, 10).uploads.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refused_id_is_asked_for_anew_and_the_next_one_is_no_help() {
    let mut line = uploading(OnUnfetchable::Refuse).await;
    let first: Arc<str> = "77".into();
    answer(&mut line, ready(&first));
    assert!(line.attachment_refused(&image(1), &first, Instant::now()));
    assert!(!line.attachment_refused(&image(2), &first, Instant::now()), "another one is in use by now");
    give(&mut line, image(1));
    let order = pump(&mut line, 10).uploads.pop().expect("a question");
    assert_eq!(order.refused_id, Some(first.clone()));
    answer(&mut line, ready("78"));
    assert_eq!(calls(&mut line).await, [Some("78".to_owned())]);
    let second: Arc<str> = "78".into();
    assert!(line.attachment_refused(&image(1), &second, Instant::now()));
    give(&mut line, image(3));
    assert_eq!(calls(&mut line).await, [None], "the URL is sent");
}

#[tokio::test(start_paused = true)]
async fn line_of_instagram_login_uploads_nothing() {
    let mut line = Line::new(LineId(7), RowMemory::of(u64::MAX)).with_assets(Some(OnUnfetchable::Refuse));
    configure(&mut line, &LineRecord { page_token: Some("IGAAtoken".into()), ..record(None) });
    give(&mut line, image(1));
    assert_eq!(calls(&mut line).await, [None]);
}

#[tokio::test(start_paused = true)]
async fn unused_assets_are_forgotten() {
    let mut line = uploading(OnUnfetchable::Hold).await;
    give(&mut line, image(1));
    pump(&mut line, 10);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(line.forget_assets(Instant::now()), 1, "a message waits for it");
    answer(&mut line, ready("77"));
    assert_eq!(calls(&mut line).await.len(), 1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(line.forget_assets(Instant::now()), 0);
    give(&mut line, image(2));
    assert_eq!(pump(&mut line, 10).uploads.len(), 1, "the database is asked");
}
