//! Access to the admin listener (docs/security.md), from outside: hosts, tokens, the socket, and the headers of its
//! answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use reqwest::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use testkit::process::Output;
use testkit::program::Program;

use crate::support::pipeline::{Backend, Pipeline, eventually};

const READER: &str = "reader-0123456789";
const OPERATOR: &str = "operator-0123456789";
const PROBES: [&str; 2] = ["/healthz", "/readyz"];
const OTHERS: [&str; 3] = ["/metrics", "/openapi.json", "/asyncapi.json"];

/// `serve` whose admin listener has a file of tokens.
struct Guarded {
    pipeline: Pipeline,
    folder: tempfile::TempDir,
}

impl Guarded {
    async fn start() -> Guarded {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tokens");
        fs::write(&path, format!("read:{READER}\noperate:{OPERATOR}\n")).expect("the folder can be written");
        let changed = [("admin.token_file", path.to_str().expect("UTF-8"))];
        let pipeline = Pipeline::start_with(Backend::Embedded, &changed).await;
        Guarded { pipeline, folder }
    }

    fn write(&self, tokens: &str) {
        fs::write(self.folder.path().join("tokens"), tokens).expect("the folder can be written");
    }
}

impl Pipeline {
    fn ask_admin(&self, method: Method, path: &str) -> RequestBuilder {
        let port = self.admin()[0].port();
        self.client.request(method, format!("http://127.0.0.1:{port}{path}"))
    }
}

async fn answer(request: RequestBuilder) -> Response {
    request.send().await.expect("the admin listener answers")
}

async fn status(request: RequestBuilder) -> u16 {
    answer(request).await.status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_host_is_misdirected_on_all_but_the_probes() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let get = |path: &str, host: &str| pipeline.ask_admin(Method::GET, path).header(HOST, host);
    for path in OTHERS {
        assert_eq!(status(pipeline.ask_admin(Method::GET, path)).await, 200, "{path}");
        assert_eq!(status(get(path, "localhost:9090")).await, 200, "{path}");
        assert_eq!(status(get(path, "evil.example:9090")).await, 421, "{path}");
    }
    for path in PROBES {
        assert_eq!(status(get(path, "evil.example:9090")).await, 200, "{path}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_host_is_answered() {
    let changed = [("admin.hosts", "ops.example, Metrics.Example")];
    let pipeline = Pipeline::start_with(Backend::Embedded, &changed).await;
    for (host, expected) in
        [("ops.example", 200), ("metrics.example:443", 200), ("evil.example", 421), ("localhost", 200)]
    {
        let request = pipeline.ask_admin(Method::GET, "/metrics").header(HOST, host);
        assert_eq!(status(request).await, expected, "{host}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_but_the_probes_needs_a_token() {
    let guarded = Guarded::start().await;
    let ask = |path| guarded.pipeline.ask_admin(Method::GET, path);
    for path in PROBES {
        assert_eq!(status(ask(path)).await, 200, "{path}");
    }
    for path in OTHERS.into_iter().chain(["/", "/nowhere"]) {
        let refused = answer(ask(path)).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
        let schemes: Vec<_> = refused.headers().get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(schemes.len(), 2, "{path}: {schemes:?}");
        assert_eq!(status(ask(path).bearer_auth("unknown-0123456789")).await, 401, "{path}");
    }
    for path in OTHERS {
        assert_eq!(status(ask(path).bearer_auth(READER)).await, 200, "{path}");
        assert_eq!(status(ask(path).basic_auth("admin", Some(OPERATOR))).await, 200, "{path}");
    }
    assert_eq!(status(ask("/nowhere").bearer_auth(READER)).await, 404);
    guarded.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_may_not_change_anything() {
    let guarded = Guarded::start().await;
    let post = || guarded.pipeline.ask_admin(Method::POST, "/metrics");
    assert_eq!(status(post()).await, 401);
    assert_eq!(status(post().bearer_auth(READER)).await, 403);
    assert_eq!(status(post().bearer_auth(OPERATOR)).await, 405);
    let from_another_site = post().bearer_auth(OPERATOR).header("Sec-Fetch-Site", "cross-site");
    assert_eq!(status(from_another_site).await, 403);
    guarded.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_tokens_are_in_force_without_a_restart() {
    let guarded = Guarded::start().await;
    let reads = |token: &'static str| {
        let request = guarded.pipeline.ask_admin(Method::GET, "/metrics");
        status(request.header(AUTHORIZATION, format!("Bearer {token}")))
    };
    assert_eq!((reads(READER).await, reads("next-0123456789abc").await), (200, 401));
    guarded.write("read:next-0123456789abc\n");
    eventually("the new token to open the listener", || async {
        match reads("next-0123456789abc").await {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(reads(READER).await, 401, "the old token is revoked");
    guarded.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listener_beyond_loopback_without_tokens_answers_probes_alone() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &[("admin.listen", "0.0.0.0:0")]).await;
    for path in PROBES {
        assert_eq!(status(pipeline.ask_admin(Method::GET, path)).await, 200, "{path}");
    }
    for path in OTHERS {
        let refused = answer(pipeline.ask_admin(Method::GET, path)).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{path}");
        let text = refused.text().await.expect("a text");
        assert!(text.contains("admin.token_file") && text.contains("admin.listen"), "{text}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_headers_of_a_guarded_listener() {
    let guarded = Guarded::start().await;
    for (path, token, expected) in
        [("/healthz", "", 200), ("/metrics", READER, 200), ("/metrics", "", 401), ("/nowhere", READER, 404)]
    {
        let answer = answer(guarded.pipeline.ask_admin(Method::GET, path).bearer_auth(token)).await;
        assert_eq!(answer.status().as_u16(), expected, "{path}");
        for (name, value) in [
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.headers()[name], value, "{path}");
        }
    }
    guarded.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_serves_its_user_and_is_removed_at_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("admin.sock");
    // A killed process leaves its socket.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("the folder can be written"));
    let listen = format!("unix:{}", path.display());
    let pipeline = Pipeline::start_with(Backend::Embedded, &[("admin.listen", &listen)]).await;
    let mode = fs::symlink_metadata(&path).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = reqwest::Client::builder().unix_socket(path.as_path()).build().expect("a client");
    for path in PROBES.into_iter().chain(OTHERS) {
        assert_eq!(status(client.get(format!("http://localhost{path}"))).await, 200, "{path}");
    }
    pipeline.stop().await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_token_file_stops_the_start_by_its_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = folder.path().join("tokens");
    for (content, reason) in
        [(None, "cannot read"), (Some("read:short\n"), "line 1"), (Some("\n"), "no token")]
    {
        if let Some(content) = content {
            fs::write(&tokens, content).expect("the folder can be written");
        }
        let printed = folder.path().join("printed.log");
        let mut process = Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
            .in_folder(folder.path())
            .database("sqlite:log.db")
            .graph("http://127.0.0.1:9/v25.0")
            .http("127.0.0.1:0")
            .admin("127.0.0.1:0")
            .with("admin.token_file", tokens.to_str().expect("UTF-8"))
            .start("serve", Output::AppendTo(&printed))
            .expect("the program runs");
        assert_eq!(process.wait().await.expect("it ended").code(), Some(1), "{reason}");
        let printed = fs::read_to_string(&printed).expect("UTF-8");
        let error = printed.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains("setting admin.token_file: ") && error.contains(reason), "{printed}");
        assert!(!error.contains("short"), "{error}");
    }
}
