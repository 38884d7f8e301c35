//! The calls by which senders and operators look and take back: cancelled messages, lists and exports, lines and campaigns.

mod cancel;
mod commands;
mod lines;
mod lists;

use std::time::Duration;

use meta_dispatch::domain::RowId;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::pipeline::{Backend, Pipeline};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

/// A time to send at that no test lives to see, in Unix seconds.
fn later() -> i64 {
    (OffsetDateTime::now_utc() + Duration::from_secs(30 * 86_400)).unix_timestamp()
}

impl Pipeline {
    /// Calls a path of the interface as the account.
    async fn api(&self, method: Method, path: &str) -> (u16, Value) {
        let url = format!("http://{}/api/v2/{path}", self.http);
        let request = self.client.request(method, url).bearer_auth(self.tsid.expose_secret());
        let answer = request.send().await.expect("ingest answers");
        (answer.status().as_u16(), answer.json().await.expect("answers are JSON"))
    }

    async fn read(&self, path: &str) -> Value {
        let (status, answer) = self.api(Method::GET, path).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Cancels by a path and its query; how many messages.
    async fn touched(&self, path: &str) -> i64 {
        let (status, answer) = self.api(Method::POST, path).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer["touched"].as_i64().expect("a number")
    }

    /// Submits a text with these parameters beside.
    async fn text(&self, dest: &str, more: Value) -> RowId {
        let mut parameters = json!({"app_id": self.messenger.0, "dest": dest, "mdata": "hello"});
        for (name, value) in more.as_object().into_iter().flatten() {
            parameters[name] = value.clone();
        }
        let (status, answer) = self.post(meta_dispatch::channel::Class::MESSENGER, parameters).await;
        assert_eq!(status, 200, "{answer}");
        RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))
    }

    /// Has nothing sent on the line until it is resumed.
    async fn hold(&self) {
        self.store.pause_line(self.messenger, None, "held").await.expect("lines can be paused");
        // A worker follows within ten seconds; one that sends meanwhile would be seen.
        self.until_held().await;
    }

    async fn until_held(&self) {
        for n in 0..40 {
            let before = self.simulator.calls().len();
            let id = self.text(&format!("probe{n}"), json!({"cp_id": "probe"})).await;
            tokio::time::sleep(std::time::Duration::from_millis(600)).await;
            if self.simulator.calls().len() == before {
                self.touched(&format!("messages/{id}/cancel")).await;
                return;
            }
        }
        panic!("the line goes on");
    }
}
