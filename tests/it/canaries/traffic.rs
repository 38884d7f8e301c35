//! The traffic of callers and operators: what succeeds, what is refused, and what carries a secret in the wrong place.

use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::program::Program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stage::Stage;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const NDJSON: &str = "application/x-ndjson";
/// Answers to so many lines need a temporary file.
const MANY: usize = 4_000;

/// An answer as its client sees it: status, headers and body.
struct Answer {
    status: u16,
    whole: String,
    body: String,
}

impl Answer {
    async fn to(request: RequestBuilder) -> Answer {
        let answer = request.send().await.expect("the process answers");
        let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        let body = answer.text().await.expect("the answer is whole");
        Answer { status, whole: format!("{headers}\n{body}"), body }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("answers are JSON")
    }
}

impl Stage {
    fn api(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}/api/v2/{path}", self.http))
    }

    fn send(&self) -> RequestBuilder {
        self.api(Method::POST, "MakeMessenger.php")
    }

    /// Make a request whose answer holds no text; return the answer.
    async fn ask(&mut self, what: &str, request: RequestBuilder, expected: u16) -> Answer {
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, expected, "{what}: {}", answer.body);
        self.saw(what, answer.whole.as_bytes());
        answer
    }

    async fn ask_for_texts(&mut self, what: &str, request: RequestBuilder) {
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        self.may_hold_texts(what, answer.whole.as_bytes());
        assert!(answer.body.contains(&self.canaries.text), "{what} shows no text: {}", answer.body);
    }

    /// Everything that callers over HTTP do, in order and in error.
    pub async fn callers(&mut self) {
        self.accepted().await;
        self.refused_by_graph().await;
        self.malformed().await;
        self.unauthenticated().await;
        self.batches().await;
        self.enquiries().await;
    }

    async fn accepted(&mut self) {
        let (tsid, text) = (self.canaries.tsid.clone(), self.canaries.text.clone());
        for line in [self.plain_line, self.sealed_line] {
            let message = json!({"tsid": tsid, "app_id": line, "dest": "ann", "mdata": text, "wait": 20, "cp_id": "spring"});
            let answer = self.ask("a message that is sent", self.send().json(&message), 200).await;
            assert_eq!(answer.json()["return"]["status_code"], 200, "{}", answer.body);
        }
        let line = self.plain_line;
        let query = format!("MakeMessenger.php?tsid={tsid}&app_id={line}&dest=bob&mdata={text}");
        self.ask("a message in a query", self.api(Method::GET, &query), 200).await;
        let form = format!("app_id={line}&dest=cleo&mdata={text}&mcaption=&tsidd={tsid}");
        let form = self.send().bearer_auth(&tsid).header(CONTENT_TYPE, FORM).body(form);
        self.ask("a message in a form", form, 200).await;
        let part = |name: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let parts = [
            part("sid", &tsid),
            part("app_id", &line.to_string()),
            part("dest", "dan"),
            part("mdata", &text),
        ];
        let parts = self
            .send()
            .header(CONTENT_TYPE, "multipart/form-data; boundary=b")
            .body(parts.concat() + "--b--\r\n");
        self.ask("a message in parts", parts, 200).await;
    }

    async fn refused_by_graph(&mut self) {
        let (tsid, text) = (self.canaries.tsid.clone(), self.canaries.text.clone());
        for line in [self.plain_line, self.sealed_line] {
            let message =
                json!({"tsid": tsid, "app_id": line, "dest": "echo-eve", "mdata": text, "wait": 20});
            let answer = self.ask("a message that Graph refuses", self.send().json(&message), 400).await;
            let said = answer.json()["return"]["error_message"].clone();
            assert!(said.as_str().is_some_and(|said| said.contains("[redacted]")), "{}", answer.body);
        }
        let message =
            json!({"tsid": tsid, "app_id": self.sealed_line, "dest": "cut-eve", "mdata": text, "wait": 20});
        self.ask("a message whose outcome is not known", self.send().json(&message), 200).await;
    }

    /// Requests that cannot be read, or hold the token in the wrong place.
    async fn malformed(&mut self) {
        let (tsid, text) = (self.canaries.tsid.clone(), self.canaries.text.clone());
        let bodies = [
            ("JSON that is cut", JSON, format!(r#"{{"tsid":"{tsid}","mdata":"{text}"#), 400),
            ("a list", JSON, format!(r#"["{tsid}","{text}"]"#), 400),
            ("a token as an object", JSON, format!(r#"{{"tsid":{{"{tsid}":"{text}"}}}}"#), 401),
            (
                "a token for a line",
                JSON,
                format!(r#"{{"tsid":"{tsid}","app_id":"{tsid}","mdata":"{text}"}}"#),
                400,
            ),
            (
                "a text for a type",
                JSON,
                format!(r#"{{"tsid":"{tsid}","app_id":1,"dest":"1","mtype":"{text}","mdata":"x"}}"#),
                400,
            ),
            (
                "a text for a time",
                JSON,
                format!(r#"{{"tsid":"{tsid}","app_id":1,"dest":"1","mdata":"x","send_at":"{text}"}}"#),
                400,
            ),
            (
                "a text for a recipient",
                JSON,
                format!(r#"{{"tsid":"{tsid}","app_id":1,"dest":"{text}, {tsid}","mdata":"x"}}"#),
                400,
            ),
            ("JSON as a form", FORM, format!(r#"{{"tsid":"{tsid}","mdata":"{text}"}}"#), 401),
            ("another type", "text/plain", format!("tsid={tsid}&mdata={text}"), 400),
            (
                "parts that are cut",
                "multipart/form-data; boundary=b",
                format!("--b\r\n\r\n{tsid} {text}"),
                400,
            ),
            ("a body of 70 KB", FORM, format!("tsid={tsid}&mdata={}", text.repeat(3_000)), 413),
        ];
        for (what, content_type, body, status) in bodies {
            self.ask(what, self.send().header(CONTENT_TYPE, content_type).body(body), status).await;
        }
        let coded = self.send().bearer_auth(&tsid).header(CONTENT_ENCODING, "gzip").body(text.clone());
        self.ask("a coded body", coded, 400).await;
        let key = self
            .send()
            .bearer_auth(&tsid)
            .header("Idempotency-Key", text.repeat(9))
            .json(&json!({"app_id": 1}));
        self.ask("a text for a key", key, 400).await;
        self.ask(
            "a path of nobody",
            self.client.get(format!("http://{}/{tsid}?tsid={tsid}", self.http)),
            404,
        )
        .await;
        for head in [
            format!("GET /api/v2/messages?tsid={tsid} HTTP/9.9\r\nHost: x\r\n\r\n"),
            format!("GET /api/v2/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tsid}\0\r\n\r\n"),
            format!("{tsid} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            format!(
                "POST /api/v2/MakeMessenger.php HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{tsid}\r\n{text}\r\n"
            ),
        ] {
            let mut stream = TcpStream::connect(&self.http).await.expect("the process listens");
            stream.write_all(head.as_bytes()).await.expect("it is written");
            let mut answer = Vec::new();
            // A connection that is reset has answered before.
            let _ended = stream.read_to_end(&mut answer).await;
            self.saw("the answer to a broken head", &answer);
        }
    }

    async fn unauthenticated(&mut self) {
        let (wrong, text) = (self.canaries.wrong_tsid.clone(), self.canaries.text.clone());
        let message = json!({"app_id": 1, "dest": "ann", "mdata": text});
        self.ask("a wrong token in a header", self.send().bearer_auth(&wrong).json(&message), 401).await;
        let mut with_token = message.clone();
        with_token["tsid"] = wrong.as_str().into();
        self.ask("a wrong token in a body", self.send().json(&with_token), 401).await;
        let paths = [
            "MakeMessenger.php",
            "messages",
            "messages/1",
            "messages/export",
            "lines",
            "campaigns",
            "campaigns/spring",
        ];
        for path in paths {
            let request = self.api(Method::GET, &format!("{path}?tsid={wrong}"));
            self.ask("a wrong token in a query", request, 401).await;
        }
        let basic = self.api(Method::GET, "lines").basic_auth(&wrong, Some(&text));
        self.ask("a password", basic, 401).await;
        let cookie = self.api(Method::GET, "lines").header("Cookie", format!("tsid={wrong}"));
        self.ask("a cookie", cookie, 401).await;
    }

    async fn batches(&mut self) {
        let (tsid, wrong) = (self.canaries.tsid.clone(), self.canaries.wrong_tsid.clone());
        let (text, line) = (self.canaries.text.clone(), self.plain_line);
        let batch = |query: &str, token: &str, content_type: &str| {
            let request = self.api(Method::POST, &format!("messages/batch?app_id={line}&{query}"));
            request.bearer_auth(token).header(CONTENT_TYPE, content_type)
        };
        let good = json!({"dest": "fay", "mdata": text});
        let with_token = json!({"dest": "fay", "mdata": text, "tsid": tsid});
        let lines = format!("{good}\n{with_token}\n{{\"{tsid}\n[\"{text}\"]\n{}", "{}\n".repeat(MANY));
        let table = format!("dest,mdata,tsid\ngus,{text},{tsid}\n");
        let row = format!("dest,mdata\ngus,{text}\n\"gus\"{tsid},{text}\n");
        let requests = [
            ("a batch", batch("batch_id=canaries", &tsid, NDJSON).body(lines.clone()), 200),
            ("a batch that is streamed", batch("batch_id=canaries&stream=1", &tsid, NDJSON).body(lines), 200),
            ("a table", batch("", &tsid, "text/csv").body(row), 200),
            ("a table with a column of tokens", batch("", &tsid, "text/csv").body(table), 400),
            ("a batch of another type", batch("", &tsid, JSON).body(text.clone()), 400),
            ("a batch with a wrong token", batch("", &wrong, NDJSON).body(good.to_string()), 401),
        ];
        for (what, request, status) in requests {
            let answer = self.ask(what, request, status).await;
            let has_logged = answer.body.contains("\"line\":") && answer.body.contains("\"cdls_id\":");
            assert_eq!(has_logged, status == 200, "{what}: {}", answer.body);
        }
    }

    async fn enquiries(&mut self) {
        let tsid = self.canaries.tsid.clone();
        let get = |path: &str| self.api(Method::GET, path).bearer_auth(&tsid);
        let with_texts = [
            ("a row", get("messages/1")),
            ("rows", get("messages?limit=1000")),
            ("an export as CSV", get("messages/export")),
            ("an export as NDJSON", get("messages/export?format=ndjson")),
        ];
        let without = [
            ("lines", get("lines")),
            ("a line", get(&format!("lines/{}", self.sealed_line))),
            ("campaigns", get("campaigns")),
            ("a campaign", get("campaigns/spring")),
        ];
        for (what, request) in with_texts {
            self.ask_for_texts(what, request).await;
        }
        for (what, request) in without {
            self.ask(what, request, 200).await;
        }
        let wrong = format!("messages?colour=1&limit={}", self.canaries.text);
        self.ask("an enquiry that is refused", self.api(Method::GET, &wrong).bearer_auth(&tsid), 400).await;
    }

    /// Every path of the admin listener, with each kind of token.
    pub async fn admin(&mut self) {
        let (reader, operator) = (self.canaries.reader.clone(), self.canaries.operator.clone());
        let wrong = self.canaries.wrong_admin.clone();
        for path in ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json", "/nowhere"] {
            let get = || self.client.get(format!("http://{}{path}", self.admin));
            let mut requests = vec![
                get(),
                get().basic_auth("admin", Some(&operator)),
                get().basic_auth(&wrong, Some(&wrong)),
            ];
            requests.push(self.client.get(format!("http://{}{path}?token={operator}", self.admin)));
            for token in [&reader, &operator, &wrong] {
                requests.push(get().bearer_auth(token));
                requests.push(self.client.post(format!("http://{}{path}", self.admin)).bearer_auth(token));
                requests.push(get().header(AUTHORIZATION, token));
            }
            for request in requests {
                let answer = Answer::to(request).await;
                self.saw(path, answer.whole.as_bytes());
            }
        }
        let metrics = self.client.get(format!("http://{}/metrics", self.admin)).bearer_auth(&reader);
        let metrics = self.ask("metrics", metrics, 200).await;
        assert!(metrics.body.contains("meta_dispatch_"), "{}", metrics.body);
    }

    /// The commands of operators and senders.
    pub fn commands(&mut self, program: &Program) {
        for arguments in [
            &["check"][..],
            &["health"],
            &["line", "list"],
            &["account", "list"],
            &["token", "list"],
            &["log", "stats"],
        ] {
            self.run(&arguments.join(" "), program, arguments, None);
            let as_json = [&["--json"][..], arguments].concat();
            self.run(&as_json.join(" "), program, &as_json, None);
        }
        for arguments in [
            &["log", "show", "1"][..],
            &["log", "tail"],
            &["log", "export"],
            &["log", "export", "--format", "ndjson"],
        ] {
            let shown = self.run_with_texts(&arguments.join(" "), program, arguments);
            let is_shown = String::from_utf8_lossy(&shown).contains(&self.canaries.text);
            assert!(is_shown || arguments.contains(&"tail"), "{arguments:?} shows no text");
            let as_json = [&["--json"][..], arguments].concat();
            if !arguments.contains(&"export") {
                self.run_with_texts(&as_json.join(" "), program, &as_json);
            }
        }
        let (url, line, text) =
            (format!("http://{}", self.http), self.plain_line.to_string(), self.canaries.text.clone());
        let sender = program.clone().variable("META_DISPATCH_TSID", &self.canaries.tsid);
        let wrong = program.clone().variable("META_DISPATCH_TSID", &self.canaries.wrong_tsid);
        let send =
            ["send", "--url", &url, "--app-id", &line, "--dest", "hal", "--mdata", &text, "--wait", "20"];
        self.run("send", &sender, &send, None);
        self.run("campaign list", &sender, &["campaign", "list", "--url", &url], None);
        self.run_in_vain("send with a wrong token", &wrong, &send);
        self.run_in_vain("campaign list with a wrong token", &wrong, &["campaign", "list", "--url", &url]);
        self.run_in_vain(
            "send to nobody",
            &sender,
            &["send", "--url", "http://127.0.0.1:1", "--app-id", "1", "--dest", "x", "--mdata", &text],
        );
    }

    /// Settings that stop the start, each with a secret in it.
    pub fn wrong_settings(&mut self) {
        let (database, broker) =
            (self.canaries.database_password.clone(), self.canaries.broker_password.clone());
        let secret = self.canaries.app_secret.clone();
        let wrong = [
            ("database.url", format!("postgres://user:{database}@127.0.0.1:port/log")),
            ("database.url", format!("postgres://user@127.0.0.1:1/log?passwrd={database}")),
            ("database.url", format!("postgres://user:{database}@127.0.0.1:1/log")),
            ("broker.url", format!("amqp://user:{broker}@127.0.0.1:port/%2f")),
            ("broker.url", format!("amqp://user:{broker}@127.0.0.1:1/%2f")),
            ("graph.proxy", format!("nonsense://user:{secret}@127.0.0.1:1")),
            ("security.key", secret.clone()),
            ("security.token_key", secret.clone()),
            ("security.app_key", secret.clone()),
        ];
        for (key, value) in wrong {
            let program = self.program.clone().with(key, &value);
            self.run_in_vain(&format!("a wrong {key}"), &program, &["check"]);
        }
        let cut = self.path("cut.toml");
        std::fs::write(&cut, format!("[graph]\napp_secret = \"{secret}")).expect("the folder can be written");
        let cut = cut.to_str().expect("UTF-8").to_owned();
        self.run_in_vain(
            "settings that are cut in a secret",
            &self.program.clone(),
            &["--config", &cut, "check"],
        );
    }

    /// A process that ends with a panic, with a message in hand.
    #[cfg(feature = "failpoints")]
    pub async fn panic(&mut self) {
        let program = self.program.clone().variable("META_DISPATCH_FAILPOINT", "after_commit:1:panic");
        let mut running = self.start("serve", &program).await;
        let message = json!({"app_id": self.plain_line, "dest": "ivy", "mdata": self.canaries.text});
        // The process may end before it answers.
        let _answered = self.send().bearer_auth(&self.canaries.tsid).json(&message).send().await;
        running.wait().await.expect("it ends");
        let printed = std::fs::read_to_string(self.log()).expect("the log is UTF-8");
        assert!(printed.contains("failpoint after_commit"), "the panic is not told");
    }
}
