//! Plays an example: brings about what it shows, makes its request, and compares what comes back.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::LineId;
use meta_dispatch::edge::tokens;
use meta_dispatch::store::NewApp;
use meta_dispatch::text::timestamp;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use ring::hmac;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::document;
use super::examples::{Example, alike, entries, pairs, values};
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};

/// As the document's example has it.
const VERIFY_TOKEN: &str = "a-verify-token";
const APP_SECRET: &str = "the secret of an app";

/// Return the signature of a body of Meta.
pub fn signature(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, APP_SECRET.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())))
}

/// A running program, with what the examples need.
pub struct Stage {
    pub pipeline: Pipeline,
    pub document: Value,
    disabled: String,
    /// Token of an account with one line.
    alone: String,
    /// Lines that do not send, by class.
    paused: [LineId; 2],
    without_token: [LineId; 2],
    without_page: LineId,
}

impl Stage {
    pub async fn set() -> Stage {
        let webhooks = [("webhooks.verify_token", VERIFY_TOKEN)];
        let pipeline = Pipeline::start_with(Backend::Embedded, &webhooks).await;
        let app = NewApp {
            id: "1".into(),
            name: None,
            secret: APP_SECRET.into(),
            verify_token: "another-verify-token".into(),
        };
        pipeline.store.put_app(&app).await.expect("apps can be added");
        let other = pipeline.store.add_account("Other").await.expect("accounts can be added");
        let disabled = tokens::mint().expose_secret().to_owned();
        let id = tokens::identifier(&disabled).expect("long enough");
        pipeline.store.add_token(other, id, &tokens::hash(&disabled)).await.expect("tokens can be added");
        pipeline.execute("update account set cdcs_active = false where cdcs_name = 'Other'").await;
        pipeline
            .execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'over', 'cancelled')")
            .await;
        let mut paused = [LineId(0); 2];
        let mut without_token = [LineId(0); 2];
        for (at, class) in [Class::MESSENGER, Class::INSTAGRAM].into_iter().enumerate() {
            paused[at] = pipeline.add_line(class, PAGE_TOKEN).await;
            // One that ends by itself: of a pause that somebody has to end, a request that waits is told at once.
            let hour = Some(std::time::Duration::from_secs(3_600));
            pipeline.store.pause_line(paused[at], hour, "test").await.expect("lines can be paused");
            without_token[at] = pipeline.add_line(class, "").await;
        }
        let without_page = pipeline.add_line_without_page().await;
        let account = pipeline.store.add_account("Alone").await.expect("accounts can be added");
        let alone = tokens::mint().expose_secret().to_owned();
        let id = tokens::identifier(&alone).expect("long enough");
        pipeline.store.add_token(account, id, &tokens::hash(&alone)).await.expect("tokens can be added");
        pipeline.add_line_of(account).await;
        pipeline.execute("update cd_v8_line set v8l_name = 'Acme'").await;
        Stage { document: document(), pipeline, disabled, alone, paused, without_token, without_page }
    }

    /// The token that an example's request has.
    pub fn token(&self, example: &str) -> Option<String> {
        match example {
            "100" => None,
            "110" => Some(self.disabled.clone()),
            // Nobody's; and while the database is away nobody can tell.
            "102" | "503" => Some(tokens::mint().expose_secret().to_owned()),
            _ => Some(self.pipeline.tsid.expose_secret().to_owned()),
        }
    }

    pub fn call(&self, method: &Method, path_and_query: &str, token: Option<String>) -> RequestBuilder {
        let url = format!("http://{}{path_and_query}", self.pipeline.http);
        let request = self.pipeline.client.request(method.clone(), url);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn play(&self, example: &Example) {
        let answer = match (example.operation.as_str(), example.name.as_str()) {
            ("sendBatch", _) => self.of_batch(example),
            (operation, "cancelled") if operation.starts_with("send") => {
                self.cancelled_meanwhile(example).await
            }
            (operation, _) if operation.starts_with("send") => self.of_submission(example).await,
            ("listMessages" | "showMessage" | "exportMessages", _) => self.of_messages(example).await,
            ("cancelMessage" | "cancelMessages", _) => self.of_cancel(example).await,
            ("listLines" | "showLine" | "listCampaigns", _) => self.of_lines(example).await,
            ("showRecipient" | "checkRecipients", _) => self.of_recipients(example).await,
            ("verifyWebhook", _) => {
                let asked = json!({
                    "hub.mode": "subscribe", "hub.verify_token": VERIFY_TOKEN, "hub.challenge": "1158201444",
                });
                self.call(&example.method, &format!("{}?{}", example.path, pairs(&asked)), None)
            }
            _ => self.of_campaign(example).await,
        };
        let Example { operation, http_status, content_type, headers, name, value, .. } = example;
        let answer = answer.send().await.expect("ingest answers");
        let which = format!("{operation}, {http_status}, {name}");
        assert_eq!(answer.headers()[CONTENT_TYPE], *content_type, "{which}");
        for header in headers {
            assert!(answer.headers().contains_key(header), "{which}: no {header}");
        }
        let status = answer.status().as_u16();
        let answered = answer.text().await.expect("answers are complete");
        assert_eq!(status, *http_status, "{which}: {answered}");
        let documented = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let (answered, documented) = (values(content_type, &answered), values(content_type, &documented));
        assert!(
            alike(&json!(answered), &json!(documented), ""),
            "{which}: {answered:#?}\nis not\n{documented:#?}"
        );
    }

    fn class(example: &Example) -> usize {
        usize::from(example.path.contains("Instagram"))
    }

    /// A submission: in the query of a GET, in the body of a POST.
    fn submission(&self, example: &Example, changes: &Value) -> RequestBuilder {
        let line = [self.pipeline.messenger, self.pipeline.instagram][Self::class(example)];
        let mut parameters = json!({"app_id": line.0, "dest": example.operation, "mdata": "hi"});
        for (name, value) in entries(changes) {
            parameters[name] = value.clone();
        }
        let token = self.token(&example.name);
        if example.method == Method::GET {
            return self.call(&example.method, &format!("{}?{}", example.path, pairs(&parameters)), token);
        }
        self.call(&example.method, &example.path, token).json(&parameters)
    }

    async fn of_submission(&self, example: &Example) -> RequestBuilder {
        let (operation, class) = (&example.operation, Self::class(example));
        let with_body = |body: String| {
            let request = self.call(&example.method, &example.path, self.token(&example.name));
            request.header(CONTENT_TYPE, "application/json").body(body)
        };
        let changes = match example.name.as_str() {
            "queued" | "100" | "102" | "110" | "503" => json!({}),
            "sent" => json!({"wait": 20}),
            "refused_by_graph" => json!({"dest": format!("code10-{operation}"), "wait": 20}),
            "expired" => json!({"dest": format!("code1200-{operation}"), "valid_for": 1, "wait": 20}),
            "400" => return with_body("{".to_owned()),
            "413" => return with_body("x".repeat(64 * 1024 + 1)),
            "210" => json!({"app_id": null}),
            "220" => json!({"dest": ""}),
            "225" => json!({"mdata": " "}),
            "226" => json!({"mtype": "sticker"}),
            "227" => json!({"mtype": "image"}),
            "229" => json!({"wait": 31}),
            "230" => json!({"app_id": 999_999}),
            "233" => json!({"app_id": self.without_token[class].0}),
            "234" => json!({"app_id": self.without_page.0}),
            "238" => json!({"mdata": "x".repeat(2_001)}),
            "244" => {
                let first = json!({"dest": "twice", "httpdup": 60, "msg_id": operation});
                self.accepted(self.submission(example, &first)).await;
                first
            }
            "246" => {
                let keyed =
                    |changes: Value| self.submission(example, &changes).header("Idempotency-Key", operation);
                self.accepted(keyed(json!({}))).await;
                return keyed(json!({"mdata": "other"}));
            }
            "247" => json!({"cp_id": "over"}),
            other => panic!("{operation}: no test plays the example {other:?}"),
        };
        self.submission(example, &changes)
    }

    /// Sends what comes before a refusal; an earlier operation's may have been the first.
    async fn accepted(&self, request: RequestBuilder) {
        let answer = request.send().await.expect("ingest answers");
        let answer: Value = answer.json().await.expect("answers are JSON");
        assert!(
            ["OK", "http duplicidade"].contains(&answer["return"]["status"].as_str().unwrap_or("")),
            "{answer}"
        );
    }

    /// A request that waits while its campaign is cancelled.
    async fn cancelled_meanwhile(&self, example: &Example) -> RequestBuilder {
        let cp_id = format!("doomed-{}", example.operation);
        let line = self.paused[Self::class(example)];
        let (token, pipeline) = (self.token(""), &self.pipeline);
        let list = format!("http://{}/api/v2/messages?cp_id={cp_id}", pipeline.http);
        let cancel = format!("http://{}/api/v2/campaigns/{cp_id}/cancel", pipeline.http);
        let (client, bearer) = (pipeline.client.clone(), token.expect("a token"));
        tokio::spawn(async move {
            eventually("the waiting request's row", || async {
                let listed =
                    client.get(&list).bearer_auth(&bearer).send().await.map_err(|e| e.to_string())?;
                let listed: Value = listed.json().await.map_err(|error| error.to_string())?;
                if listed["messages"][0].is_object() { Ok(()) } else { Err(listed.to_string()) }
            })
            .await;
            let cancelled = client.post(&cancel).bearer_auth(&bearer).send().await.expect("ingest answers");
            assert_eq!(cancelled.status().as_u16(), 200);
        });
        self.submission(example, &json!({"app_id": line.0, "cp_id": cp_id, "wait": 30}))
    }

    fn of_batch(&self, example: &Example) -> RequestBuilder {
        let contents = &self.document["paths"][&example.path]["post"]["requestBody"]["content"];
        let token = self.token(&example.name);
        let (content_type, query, body) = match example.name.as_str() {
            "ndjson" => (
                "application/x-ndjson",
                "",
                contents["application/x-ndjson"]["examples"]["ndjson"]["value"].as_str(),
            ),
            "csv" => ("text/csv", "", contents["text/csv"]["examples"]["csv"]["value"].as_str()),
            "229" => ("text/csv", "?stream=maybe", None),
            "100" | "102" | "110" | "503" => ("text/csv", "", None),
            "400" => ("application/json", "", None),
            other => panic!("sendBatch: no test plays the example {other:?}"),
        };
        self.call(&example.method, &format!("{}{query}", example.path), token)
            .header(CONTENT_TYPE, content_type)
            .body(body.unwrap_or_default().to_owned())
    }

    /// Logs the message of the document's examples under a label, and waits for its outcome.
    async fn logged(&self, cp_id: &str, dest: &str) -> i64 {
        let parameters = json!({
            "app_id": self.pipeline.messenger.0, "dest": dest, "mdata": "Olá, tudo bem?", "msg_id": "pedido-7",
            "cp_id": cp_id, "wait": 20,
        });
        let (_, answer) = self.pipeline.post(Class::MESSENGER, parameters).await;
        answer["return"]["cdls_id"].as_i64().expect("an id")
    }

    async fn of_messages(&self, example: &Example) -> RequestBuilder {
        let label = format!("{}-{}", example.operation, example.name);
        let rest = match (example.operation.as_str(), example.name.as_str()) {
            (_, "100" | "102" | "110" | "503") => example.path.replace("{cdls_id}", "1"),
            ("listMessages", "page" | "more") => {
                for _ in 0..if example.name == "more" { 2 } else { 1 } {
                    self.logged(&label, "2531927391").await;
                }
                format!("{}?cp_id={label}&limit=1&status=OK&dest=2531927391&msg_id=pedido-7", example.path)
            }
            ("listMessages", "229") => format!("{}?limit=0", example.path),
            ("exportMessages", "csv" | "ndjson") => {
                self.logged(&label, "2531927391").await;
                format!("{}?cp_id={label}&format={}", example.path, example.name)
            }
            ("exportMessages", "229") => format!("{}?format=xml", example.path),
            ("showMessage", "sent" | "refused") => {
                let dest = if example.name == "refused" { "code10-2531927391" } else { "2531927391" };
                example.path.replace("{cdls_id}", &self.logged(&label, dest).await.to_string())
            }
            ("showMessage", "404") => example.path.replace("{cdls_id}", "999999"),
            ("showMessage", "229") => format!("{}?colour=red", example.path.replace("{cdls_id}", "1")),
            other => panic!("no test plays the example {other:?}"),
        };
        self.call(&example.method, &rest, self.token(&example.name))
    }

    /// Logs a message that waits, under a label.
    async fn scheduled(&self, cp_id: &str) -> i64 {
        let later = timestamp(OffsetDateTime::now_utc() + Duration::from_secs(3_600));
        let waits = json!({
            "app_id": self.pipeline.messenger.0, "dest": "b", "mdata": "b", "cp_id": cp_id, "send_at": later,
        });
        let (status, answer) = self.pipeline.post(Class::MESSENGER, waits).await;
        assert_eq!(status, 200, "{answer}");
        answer["return"]["cdls_id"].as_i64().expect("an id")
    }

    async fn of_cancel(&self, example: &Example) -> RequestBuilder {
        let label = format!("{}-{}", example.operation, example.name);
        let with_body = |content_type: &str, body: String| {
            let request = self.call(&example.method, &example.path, self.token(&example.name));
            request.header(CONTENT_TYPE, content_type).body(body)
        };
        let one = |id: i64| example.path.replace("{cdls_id}", &id.to_string());
        let rest = match (example.operation.as_str(), example.name.as_str()) {
            ("cancelMessage", "cancelled") => one(self.scheduled(&label).await),
            ("cancelMessage", "ended") => one(self.logged(&label, "2531927391").await),
            ("cancelMessage", "229") => format!("{}?colour=red", one(1)),
            ("cancelMessage", _) => one(999_999),
            (_, "cancelled") => {
                self.scheduled(&label).await;
                format!("{}?cp_id={label}", example.path)
            }
            (_, "none") => format!("{}?cp_id={label}", example.path),
            (_, "400") => return with_body("application/json", "[]".to_owned()),
            (_, "413") => return with_body("application/json", "x".repeat(64 * 1024 + 1)),
            _ => example.path.clone(),
        };
        self.call(&example.method, &rest, self.token(&example.name))
    }

    async fn of_lines(&self, example: &Example) -> RequestBuilder {
        let is_own = matches!(example.name.as_str(), "lines" | "sending" | "campaigns");
        let token = if is_own { Some(self.alone.clone()) } else { self.token(&example.name) };
        let list = async || {
            let lines = self.call(&Method::GET, "/api/v2/lines", Some(self.alone.clone())).send().await;
            let lines: Value = lines.expect("ingest answers").json().await.expect("answers are JSON");
            lines["lines"][0]["app_id"].as_i64().expect("an id")
        };
        let path = match (example.operation.as_str(), example.name.as_str()) {
            (operation, "229") if operation != "listCampaigns" => {
                format!("{}?colour=red", example.path.replace("{app_id}", "1"))
            }
            ("listCampaigns", "229") => format!("{}?limit=0", example.path),
            ("listCampaigns", "campaigns") => {
                let message =
                    json!({"app_id": list().await, "dest": "a", "mdata": "a", "cp_id": "spring", "wait": 20});
                let send =
                    self.call(&Method::POST, "/api/v2/MakeMessenger.php", token.clone()).json(&message);
                assert_eq!(send.send().await.expect("ingest answers").status().as_u16(), 200);
                example.path.clone()
            }
            ("showLine", "sending") => example.path.replace("{app_id}", &list().await.to_string()),
            ("showLine", "paused") => {
                let line = self.pipeline.add_line(Class::MESSENGER, PAGE_TOKEN).await;
                self.pipeline.store.pause_line(line, None, "new page").await.expect("lines can be paused");
                self.pipeline.execute("update cd_v8_line set v8l_name = 'Acme'").await;
                example.path.replace("{app_id}", &line.to_string())
            }
            ("showLine", _) => example.path.replace("{app_id}", "999999"),
            _ => example.path.clone(),
        };
        self.call(&example.method, &path, token)
    }

    async fn of_recipients(&self, example: &Example) -> RequestBuilder {
        let line = self.pipeline.messenger;
        let one = |dest: &str| example.path.replace("{app_id}", &line.to_string()).replace("{dest}", dest);
        let with_body = |body: String| {
            let request = self.call(&example.method, &example.path, self.token(&example.name));
            request.header(CONTENT_TYPE, "application/json").body(body)
        };
        let rest = match (example.operation.as_str(), example.name.as_str()) {
            ("showRecipient", "open") => {
                self.pipeline
                    .execute(&format!(
                        "insert into cd_recipient (v8l_id, dest, last_inbound_at, window_until)
                         values ({line}, 'open', '2026-11-25T12:00:00.000Z', '2099-11-26T12:00:00.000Z')"
                    ))
                    .await;
                one("open")
            }
            ("showRecipient", "404") => {
                example.path.replace("{app_id}", "999999").replace("{dest}", "2531927391")
            }
            ("showRecipient", "229") => format!("{}?colour=red", one("2531927391")),
            ("showRecipient", _) => one("2531927391"),
            (_, "counts") => {
                return with_body(
                    json!({"recipients": [{"app_id": line.0, "dest": "2531927391"}]}).to_string(),
                );
            }
            (_, "400") => return with_body("[]".to_owned()),
            (_, "413") => return with_body("x".repeat(64 * 1024 + 1)),
            (_, "229") => format!("{}?colour=red", example.path),
            _ => example.path.clone(),
        };
        self.call(&example.method, &rest, self.token(&example.name))
    }

    async fn of_campaign(&self, example: &Example) -> RequestBuilder {
        let label = format!("{}-{}", example.operation, example.name);
        match (example.operation.as_str(), example.name.as_str()) {
            (_, "100" | "102" | "110" | "503" | "404" | "229") => {}
            ("showCampaign", "finished") => {
                self.logged(&label, "2531927391").await;
            }
            ("showCampaign", "running")
            | ("pauseCampaign", "paused")
            | ("resumeCampaign", "running")
            | ("cancelCampaign", "cancelled") => {
                self.logged(&label, "2531927391").await;
                self.scheduled(&label).await;
            }
            ("resumeCampaign", "247") => {
                self.logged(&label, "2531927391").await;
                let cancel = format!("/api/v2/campaigns/{label}/cancel");
                let cancelled = self.call(&Method::POST, &cancel, self.token("")).send().await;
                assert_eq!(cancelled.expect("ingest answers").status().as_u16(), 200);
            }
            other => panic!("no test plays the example {other:?}"),
        }
        let query = if example.name == "229" { "?colour=red" } else { "" };
        let path = format!("{}{query}", example.path.replace("{cp_id}", &label));
        self.call(&example.method, &path, self.token(&example.name))
    }
}
