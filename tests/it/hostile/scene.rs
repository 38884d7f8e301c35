//! The process that receives the hostile inputs, and the checks after each of them.

use std::fmt::Debug;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use testkit::program::Program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::pipeline::PAGE_TOKEN;
use crate::support::secrets::{Secret, leaks};
use crate::support::serve::{Serve, database};

/// The text of the messages: a form, JSON and a URL hold it as it is.
pub const TEXT: &str = "private-text-of-a-hostile-case";
/// The path of the Messenger endpoint.
pub const SEND: &str = "/api/v2/MakeMessenger.php";
pub const JSON: &str = "application/json";

/// Longer than the server waits for anything.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Longest sentence that helps a caller.
const LONGEST_DETAIL: usize = 400;

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Logged, and its row named.
    Logged,
    /// HTTP 200 without a row.
    Answered,
    /// The HTTP status, and `status_code`.
    Refused(u16, i64),
}

/// The refusal of a parameter.
pub fn refused(code: i64) -> Fate {
    Fate::Refused(400, code)
}

/// An answer over HTTP.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// Return the answer as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// One process, and the mismatches so far.
pub struct Scene {
    pub serve: Serve,
    pub secrets: Vec<Secret>,
    client: reqwest::Client,
    log: SqliteConnection,
    logged: i64,
    mismatches: Vec<String>,
}

impl Scene {
    pub async fn start() -> Scene {
        let serve = Serve::start(Duration::ZERO).await;
        let secrets = vec![
            Secret::new("the API token", &serve.tsid),
            Secret::new("the page token", PAGE_TOKEN),
            Secret::new("the text", TEXT),
        ];
        let log = SqliteConnection::connect(&database(&serve.folder)).await.expect("the file is there");
        Scene { serve, secrets, client: reqwest::Client::new(), log, logged: 0, mismatches: Vec::new() }
    }

    /// Run a command of operators on the database; return its answer.
    pub async fn command(&self, arguments: &[&str]) -> Value {
        let program =
            Program::new(env!("CARGO_BIN_EXE_meta-dispatch")).database(&database(&self.serve.folder));
        let answer = program.run(&[&["--json"][..], arguments].concat(), None).await;
        serde_json::from_str(&answer.expect("the command succeeds")).expect("one JSON object")
    }

    /// Post a body to a path of the senders' listener, as the account unless the headers name another token.
    pub async fn post(&self, path: &str, headers: &[(&str, &[u8])], body: impl Into<Vec<u8>>) -> Answer {
        let mut given = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header's name");
            given.append(name, HeaderValue::from_bytes(value).expect("a header's value"));
        }
        let request = self.client.post(format!("http://127.0.0.1:{}{path}", self.serve.http));
        let request = request.headers(given).body::<Vec<u8>>(body.into());
        let answer = request.send().await.expect("the process answers");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.expect("the answer is whole") }
    }

    /// Write bytes to the senders' listener; return what comes back until the connection ends.
    pub async fn exchange(&self, case: &str, bytes: &[u8]) -> Vec<u8> {
        let stream = TcpStream::connect(("127.0.0.1", self.serve.http)).await.expect("the process listens");
        let (mut from, mut to) = stream.into_split();
        let mut answer = Vec::new();
        let writing = async {
            // A refused request is cut while it is written. The half is kept: its end would be the client's.
            let _written = to.write_all(bytes).await;
            to
        };
        // A connection that is reset has answered before.
        let reading = async { from.read_to_end(&mut answer).await };
        let exchanged = tokio::time::timeout(ANSWERED_WITHIN, async { tokio::join!(writing, reading) }).await;
        assert!(exchanged.is_ok(), "{case}: the connection stays open");
        answer
    }

    /// Note a case whose result is not the expected one.
    pub fn expect<T: PartialEq + Debug>(&mut self, case: &str, seen: T, expected: T) {
        if seen != expected {
            self.mismatches.push(format!("{case}: {seen:?}, expected {expected:?}"));
        }
    }

    /// Check the answer to a single message: its fate, its envelope, its row. Return the row's id; 0 without one.
    pub async fn judge(&mut self, case: &str, answer: &Answer, expected: Fate) -> i64 {
        let envelope = answer.json()["return"].clone();
        let (code, id) = (envelope["status_code"].as_i64(), envelope["cdls_id"].as_i64());
        let fate = match (answer.status, code, id) {
            (200, Some(0), Some(1..)) => Fate::Logged,
            (200, ..) => Fate::Answered,
            (status, code, id) => {
                self.expect(case, id, Some(0));
                self.judge_detail(case, &envelope["detail"]);
                Fate::Refused(status, code.unwrap_or_default())
            }
        };
        self.expect(case, fate, expected);
        self.settle(case, answer.text.as_bytes(), i64::from(fate == Fate::Logged)).await;
        id.unwrap_or_default()
    }

    /// Check the `detail` of a refusal: a sentence of printable characters.
    pub fn judge_detail(&mut self, case: &str, detail: &Value) {
        let detail = detail.as_str().unwrap_or_default();
        let is_sentence = detail.ends_with(['.', '?']) && detail.chars().count() <= LONGEST_DETAIL;
        self.expect(case, (detail, is_sentence && !detail.contains(char::is_control)), (detail, true));
    }

    /// Check what holds after every case: no secret in the answer, so many more rows, and a process that answers.
    pub async fn settle(&mut self, case: &str, answer: &[u8], logged: i64) {
        self.expect(case, leaks(&self.secrets, answer), Vec::new());
        let rows = self.rows().await;
        self.expect(&format!("{case}: rows"), rows - self.logged, logged);
        self.logged = rows;
        let path = format!("/api/v2/messages/cancel?tsid={}&dest=nobody-waits", self.serve.tsid);
        let honest = self.post(&path, &[], "").await;
        self.expect(
            &format!("{case}: an honest caller"),
            (honest.status, honest.json()["touched"].clone()),
            (200, json!(0)),
        );
        assert!(self.serve.is_running(), "{case}: the process has ended");
    }

    async fn rows(&mut self) -> i64 {
        let counted = sqlx::query_scalar("select count(*) from cdls").fetch_one(&mut self.log).await;
        counted.expect("the log answers")
    }

    /// Check that there was no mismatch, and that the process ends in order, without a panic and without a secret in
    /// its log. Return the log.
    pub async fn end(mut self) -> String {
        let (status, _) = self.serve.stop().await;
        let printed = self.serve.printed();
        self.expect("the log", leaks(&self.secrets, printed.as_bytes()), Vec::new());
        for trace in ["a defect of this program", "panicked at"] {
            self.expect("the log", (trace, printed.contains(trace)), (trace, false));
        }
        assert!(self.mismatches.is_empty(), "{}", self.mismatches.join("\n"));
        assert!(status.success(), "{status}");
        assert!(printed.contains("DEBUG"), "the finest filter was in force");
        printed
    }
}
