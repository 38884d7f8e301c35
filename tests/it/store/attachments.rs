//! Uploaded assets: one upload at a time, the id until its end, failures that are remembered.

use std::time::Duration;

use meta_dispatch::channel::MessageKind;
use meta_dispatch::domain::{ErrorDetail, LineId};
use meta_dispatch::store::{
    AttachmentFilter, AttachmentKey, AttachmentState, SharedStore, UploadClaim, UploadEnd, UploadTurn,
};
use rstest::rstest;
use rstest_reuse::apply;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, LONG_AGO, error};

const URL: &str = "https://example.com/offer.png?signature=secret";
const SHOWN: &str = "https://example.com/offer.png";

fn key(line: i64, kind: MessageKind) -> AttachmentKey {
    AttachmentKey { line: LineId(line), kind, url: URL.into() }
}

fn image() -> AttachmentKey {
    key(1, MessageKind::Image)
}

async fn begin(store: &SharedStore, key: &AttachmentKey, holder: &str) -> UploadTurn {
    begin_without(store, key, holder, None).await
}

async fn begin_without(
    store: &SharedStore,
    key: &AttachmentKey,
    holder: &str,
    refused_id: Option<&str>,
) -> UploadTurn {
    let claim = UploadClaim { key, holder, lease: HOUR, refused_id };
    store.begin_upload(&claim).await.expect("the store answers")
}

async fn end(store: &SharedStore, key: &AttachmentKey, holder: &str, end: UploadEnd) -> bool {
    store.end_upload(key, holder, &end).await.expect("the store answers")
}

fn ready(id: &str) -> UploadEnd {
    UploadEnd::Ready { attachment_id: id.into(), valid_for: 2 * HOUR }
}

fn id_of(turn: UploadTurn) -> (String, Duration) {
    match turn {
        UploadTurn::Ready { attachment_id, left } => (attachment_id, left),
        other => panic!("{other:?}"),
    }
}

#[apply(on_both)]
async fn upload_has_one_holder_and_its_id_is_for_all(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    assert_eq!(begin(store, &image(), "a").await, UploadTurn::Ours);
    assert_eq!(begin(store, &image(), "b").await, UploadTurn::Elsewhere);
    assert!(!end(store, &image(), "b", ready("9")).await, "b does not hold it");
    assert!(store.renew_upload(&image(), "a", HOUR).await.expect("the store answers"));
    assert!(!store.renew_upload(&image(), "b", HOUR).await.expect("the store answers"));
    assert!(end(store, &image(), "a", ready("77")).await);
    let (id, left) = id_of(begin(store, &image(), "b").await);
    assert_eq!(id, "77");
    assert!(left > HOUR && left <= 2 * HOUR, "{left:?}");
    // The same URL is another asset on another line, and as another kind.
    assert_eq!(begin(store, &key(2, MessageKind::Image), "b").await, UploadTurn::Ours);
    assert_eq!(begin(store, &key(1, MessageKind::File), "b").await, UploadTurn::Ours);
}

#[apply(on_both)]
async fn upload_whose_lease_has_ended_is_taken_over(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    assert_eq!(begin(store, &image(), "a").await, UploadTurn::Ours);
    fixture.execute(&format!("update attachment set until = {LONG_AGO}")).await;
    assert_eq!(begin(store, &image(), "b").await, UploadTurn::Ours);
    assert!(!store.renew_upload(&image(), "a", HOUR).await.expect("the store answers"));
    assert!(!end(store, &image(), "a", ready("1")).await);
    assert!(end(store, &image(), "b", ready("2")).await);
    assert_eq!(id_of(begin(store, &image(), "c").await).0, "2");
}

#[apply(on_both)]
async fn refused_id_is_replaced(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    begin(store, &image(), "a").await;
    end(store, &image(), "a", ready("77")).await;
    assert_eq!(begin_without(store, &image(), "b", Some("77")).await, UploadTurn::Ours);
    assert!(end(store, &image(), "b", ready("78")).await);
    assert_eq!(id_of(begin_without(store, &image(), "c", Some("77")).await).0, "78");
}

#[apply(on_both)]
async fn id_is_not_used_beyond_its_life(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    begin(store, &image(), "a").await;
    end(store, &image(), "a", ready("77")).await;
    fixture.execute(&format!("update attachment set until = {LONG_AGO}")).await;
    let all = AttachmentFilter::default();
    assert!(store.attachments(&all).await.expect("the store answers").is_empty());
    assert_eq!(store.drop_ended_attachments().await.expect("the store answers"), 1);
    assert_eq!(begin(store, &image(), "b").await, UploadTurn::Ours);
}

#[apply(on_both)]
async fn failure_is_remembered_and_dropped_upload_is_not(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    begin(store, &image(), "a").await;
    let error = ErrorDetail { code: Some(100), subcode: Some(2018008), ..error() };
    let failed = UploadEnd::Unfetchable { error: error.clone(), remembered_for: HOUR };
    assert!(end(store, &image(), "a", failed).await);
    match begin(store, &image(), "b").await {
        UploadTurn::Unfetchable { error: kept, left } => {
            assert_eq!(kept, error);
            assert!(left <= HOUR && left > HOUR / 2, "{left:?}");
        }
        other => panic!("{other:?}"),
    }
    let other = key(2, MessageKind::Image);
    begin(store, &other, "a").await;
    assert!(end(store, &other, "a", UploadEnd::Dropped).await);
    assert_eq!(begin(store, &other, "b").await, UploadTurn::Ours);
}

#[apply(on_both)]
async fn listing_hides_the_query_and_forgetting_takes_either_form(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    for line in [1, 2] {
        let key = key(line, MessageKind::Image);
        begin(store, &key, "a").await;
        end(store, &key, "a", ready("77")).await;
    }
    let of = |line: Option<i64>, url: Option<&str>| AttachmentFilter {
        line: line.map(LineId),
        url: url.map(str::to_owned),
    };
    let listed = store.attachments(&of(Some(2), None)).await.expect("the store answers");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].v8l_id, listed[0].kind), (LineId(2), MessageKind::Image));
    assert_eq!((listed[0].url.as_str(), listed[0].state), (SHOWN, AttachmentState::Ready));
    assert_eq!(listed[0].attachment_id.as_deref(), Some("77"));
    assert!(listed[0].until > listed[0].changed_at);
    let forget = async |filter| store.forget_attachments(&filter).await.expect("the store answers");
    assert_eq!(forget(of(None, Some("https://example.com/other.png"))).await, 0);
    assert_eq!(forget(of(Some(1), Some(URL))).await, 1);
    assert_eq!(forget(of(None, Some(SHOWN))).await, 1);
    assert!(store.attachments(&of(None, None)).await.expect("the store answers").is_empty());
}

#[apply(on_both)]
async fn forgotten_upload_in_progress_is_done_again(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    begin(store, &image(), "a").await;
    let all = AttachmentFilter::default();
    assert_eq!(store.forget_attachments(&all).await.expect("the store answers"), 1);
    assert!(!end(store, &image(), "a", ready("77")).await);
    assert_eq!(begin(store, &image(), "a2").await, UploadTurn::Ours);
}

#[apply(on_both)]
async fn removed_line_takes_its_assets_along(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    begin(store, &image(), "a").await;
    assert!(store.remove_line(LineId(1)).await.expect("the line has no message"));
    assert_eq!(fixture.rows_of("attachment").await, 0);
}
