//! Requests that wait while RabbitMQ is away: the log has their outcome.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use serde_json::json;

use crate::support::pipeline::{Backend, Pipeline};

/// An address at which no broker is.
const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:1/%2f";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn waiting_request_is_answered_when_the_outcome_is_known() {
    let pipeline = Pipeline::start_with(Backend::Servers, &[("broker.url", NOWHERE)]).await;
    let line = pipeline.messenger.0;
    let asked = Instant::now();
    let parameters = json!({"app_id": line, "dest": "ann", "mdata": "hello", "wait": 30});
    let (_, answer) = pipeline.post(Class::MESSENGER, parameters).await;
    assert_eq!((&answer["return"]["status"], &answer["return"]["status_code"]), (&json!("OK"), &json!(200)));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    pipeline.stop().await;
}
