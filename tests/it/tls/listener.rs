//! A listener with TLS: its clients, the protocols it offers, and a certificate that changes while it serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use meta_dispatch::edge::{Look, Tls};
use reqwest::tls::TlsInfo;
use reqwest::{Client, StatusCode};
use rstest::rstest;
use rustls::ClientConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::program::Program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{NAMES, Scene, Shown};
use crate::support::certificates::{Authority, Files, Issued};
use crate::support::pipeline::{Backend, PATIENCE, Pipeline, eventually};
use crate::support::serve::{PRINTED, Serve, database};
use crate::support::tls_host::{Behind, Opening, TlsHost};

/// Return a client that trusts the authority alone, and shakes hands for each request.
fn client(authority: &Authority) -> Client {
    crate::support::install_crypto();
    Client::builder()
        .no_proxy()
        .tls_certs_only([authority.for_client()])
        .tls_info(true)
        .pool_max_idle_per_host(0)
        .timeout(PATIENCE)
        .build()
        .expect("a client")
}

async fn start(files: &Files, more: &[(&str, &str)]) -> Pipeline {
    let (cert, key) = (files.cert.display().to_string(), files.key.display().to_string());
    let changed = [&[("http.tls_cert", cert.as_str()), ("http.tls_key", key.as_str())][..], more].concat();
    Pipeline::start_with(Backend::Embedded, &changed).await
}

async fn send(pipeline: &Pipeline, client: &Client) -> reqwest::Result<Value> {
    let url = format!("https://{}/api/v2/MakeMessenger.php", pipeline.http);
    let message = json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hello", "wait": 20});
    let request = client.post(url).bearer_auth(pipeline.tsid.expose_secret()).json(&message);
    request.send().await?.json().await
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_clients_that_trust_its_authority() {
    let scene = Scene::with(Shown::Good);
    let pipeline = start(&scene.files, &[]).await;
    let answer = send(&pipeline, &client(&scene.authority)).await.expect("it is served");
    assert_eq!(answer["return"]["status_code"], 200, "{answer}");
    assert!(send(&pipeline, &client(&Authority::new())).await.is_err(), "another authority");
    let plain = pipeline.client.get(format!("http://{}/", pipeline.http)).send().await;
    assert!(plain.is_err(), "plain http");
    pipeline.stop().await;
}

#[rstest]
#[case::nothing(&[], Some(None))]
#[case::http_1_1(&["http/1.1"], Some(Some("http/1.1")))]
#[case::either(&["h2", "http/1.1"], Some(Some("http/1.1")))]
#[case::http_2(&["h2"], None)]
#[tokio::test]
async fn offers_http_1_1_alone(#[case] asked: &[&str], #[case] expected: Option<Option<&str>>) {
    let scene = Scene::with(Shown::Good);
    let host = TlsHost::start(&scene.files, Opening::Tls, Behind::Nothing).await;
    for version in [&TLS12, &TLS13] {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .expect("ring speaks both")
            .with_root_certificates(scene.authority.roots())
            .with_no_client_auth();
        config.alpn_protocols = asked.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(host.address).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let agreed = connected.ok().map(|stream| {
            let protocol = stream.get_ref().1.alpn_protocol();
            protocol.map(|name| String::from_utf8_lossy(name).into_owned())
        });
        assert_eq!(agreed, expected.map(|name| name.map(str::to_owned)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_hold_up_no_other_client() {
    // Both ends of each connection are files of this process.
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit can be raised");
    let scene = Scene::with(Shown::Good);
    let pipeline = start(&scene.files, &[("http.max_connections_per_address", "3000")]).await;
    let mut slow = Vec::new();
    for _ in 0..1_000 {
        let mut stream = TcpStream::connect(pipeline.http).await.expect("it listens");
        // The first byte of a handshake.
        stream.write_all(&[22]).await.expect("it is taken");
        slow.push(stream);
    }
    let began = Instant::now();
    let answer = send(&pipeline, &client(&scene.authority)).await.expect("it is served");
    assert_eq!(answer["return"]["status_code"], 200, "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut buffer = [0; 64];
    let cut = tokio::time::timeout(PATIENCE, slow[0].read(&mut buffer)).await;
    assert!(matches!(cut.expect("it is cut in time"), Ok(0) | Err(_)), "no byte is owed");
    pipeline.stop().await;
}

#[test]
fn unusable_pair_is_refused_by_its_key() {
    let authority = Authority::new();
    let (own, other) = (authority.issue(&NAMES), authority.issue(&NAMES));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (cert, key, setting, reason) in [
        (own.cert.as_str(), other.key.as_str(), "http.tls_key", "is not the key of"),
        (own.cert.as_str(), "", "http.tls_key", "holds no private key"),
        (own.cert.as_str(), encrypted, "http.tls_key", "holds no private key"),
        ("", own.key.as_str(), "http.tls_cert", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", own.key.as_str(), "http.tls_cert", "is no PEM file"),
    ] {
        let files = Issued { cert: cert.to_owned(), key: key.to_owned() }.files(folder.path());
        let refused = Tls::load("http", &files.cert, &files.key).err().expect("it is refused").to_string();
        assert!(refused.starts_with(&format!("setting {setting}: ")), "{refused}");
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
    let files = own.files(folder.path());
    std::fs::remove_file(&files.key).expect("it was there");
    let refused = Tls::load("admin", &files.cert, &files.key).err().expect("it is refused").to_string();
    assert!(refused.starts_with("setting admin.tls_key: "), "{refused}");
    assert!(refused.contains("cannot be read"), "{refused}");
}

#[test]
fn look_loads_what_can_be_used() {
    let scene = Scene::with(Shown::Good);
    let tls = Tls::load("http", &scene.files.cert, &scene.files.key).expect("the pair can be used");
    assert_eq!(tls.look(), Look::Unchanged);
    let (next, stray) = (scene.authority.issue(&NAMES), scene.authority.issue(&NAMES));
    std::fs::write(&scene.files.key, &stray.key).expect("it can be written");
    assert_eq!((tls.look(), tls.look()), (Look::Refused, Look::Unchanged), "told once");
    next.files(scene.folder.path());
    assert_eq!((tls.look(), tls.look()), (Look::Loaded, Look::Unchanged));
    std::fs::remove_file(&scene.files.cert).expect("it was there");
    assert_eq!((tls.look(), tls.look()), (Look::Refused, Look::Unchanged), "told once");
    next.files(scene.folder.path());
    assert_eq!(tls.look(), Look::Loaded);
}

/// Requests to a listener, each on a connection of its own, until the load is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    tasks: JoinSet<Vec<String>>,
}

impl Load {
    fn on(url: &str, client: &Client) -> Load {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (url, client) = (url.to_owned(), client.clone());
            let (stop, served) = (stop.clone(), served.clone());
            tasks.spawn(async move {
                let mut errors = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.get(&url).send().await {
                        // No page of the listener: the request was served.
                        Ok(answer) if answer.status() == StatusCode::NOT_FOUND => {
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => errors.push(answer.status().to_string()),
                        Err(error) => errors.push(format!("{error:?}")),
                    }
                }
                errors
            });
        }
        Load { stop, served, tasks }
    }

    async fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let errors = self.tasks.join_all().await.concat();
        (self.served.load(Ordering::Relaxed), errors)
    }
}

/// Wait until new connections are shown a certificate. Each look has a client of its own: a client that knows the
/// listener takes its last session up again, and is shown no certificate.
async fn is_shown(url: &str, authority: &Authority, issued: &Issued) {
    let expected = CertificateDer::from_pem_slice(issued.cert.as_bytes()).expect("it is PEM");
    eventually("the changed certificate", || async {
        let answer = client(authority).get(url).send().await.map_err(|error| format!("{error:?}"))?;
        let shown = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
        if shown == Some(expected.as_ref()) { Ok(()) } else { Err("another one".to_owned()) }
    })
    .await;
}

async fn start_serve(files: &Files) -> Serve {
    let mut serve = Serve::start(Duration::ZERO).await;
    let (cert, key) = (files.cert.display().to_string(), files.key.display().to_string());
    let variables =
        [("META_DISPATCH__HTTP__TLS_CERT", cert.as_str()), ("META_DISPATCH__HTTP__TLS_KEY", key.as_str())];
    serve.restart_with(&variables).await;
    serve
}

/// Wait for a text in the log of the process.
async fn is_printed(serve: &Serve, text: &str) {
    eventually(text, || async {
        let printed = std::fs::read_to_string(serve.folder.path().join(PRINTED)).expect("UTF-8");
        if printed.contains(text) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_changes_under_load_without_an_error() {
    let scene = Scene::with(Shown::Good);
    let mut serve = start_serve(&scene.files).await;
    let (url, client) = (format!("https://127.0.0.1:{}/", serve.http), client(&scene.authority));
    let load = Load::on(&url, &client);
    for _ in 0..5 {
        let next = scene.authority.issue(&NAMES);
        next.files(scene.folder.path());
        serve.signal("HUP");
        is_shown(&url, &scene.authority, &next).await;
    }
    let (served, errors) = load.stop().await;
    assert_eq!(errors, [""; 0]);
    assert!(served > 0);
    assert!(serve.is_running(), "SIGHUP stops no process with certificates");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_change_leaves_the_certificate() {
    let scene = Scene::with(Shown::Good);
    let mut serve = start_serve(&scene.files).await;
    let (url, client) = (format!("https://127.0.0.1:{}/", serve.http), client(&scene.authority));
    let stray = scene.authority.issue(&NAMES);
    std::fs::write(&scene.files.key, &stray.key).expect("it can be written");
    serve.signal("HUP");
    is_printed(&serve, "changed certificate refused: the old one stays").await;
    client.get(&url).send().await.expect("the old one serves");
    let expired = scene.authority.issue_expired(&NAMES);
    expired.files(scene.folder.path());
    serve.signal("HUP");
    is_printed(&serve, "certificate expired: clients refuse it").await;
    let next = scene.authority.issue(&NAMES);
    next.files(scene.folder.path());
    serve.signal("HUP");
    is_shown(&url, &scene.authority, &next).await;
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", serve.admin)).await;
    let metrics = metrics.expect("it answers").text().await.expect("a text");
    let loads = metrics.lines().filter(|line| line.starts_with("meta_dispatch_certificate_loads_total{"));
    let of_http: Vec<&str> = loads.filter(|line| line.contains("listener=\"http\"")).collect();
    for outcome in ["refused", "loaded"] {
        let is_counted = |line: &&str| line.contains(outcome) && !line.ends_with(" 0");
        assert!(of_http.iter().any(is_counted), "{outcome}: {of_http:?}");
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_an_admin_listener_with_tls() {
    let scene = Scene::with(Shown::OfAnotherHost);
    let (cert, key) = (scene.files.cert.display().to_string(), scene.files.key.display().to_string());
    let mut serve = Serve::start(Duration::ZERO).await;
    let variables =
        [("META_DISPATCH__ADMIN__TLS_CERT", cert.as_str()), ("META_DISPATCH__ADMIN__TLS_KEY", key.as_str())];
    serve.restart_with(&variables).await;
    let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
        .in_folder(serve.folder.path())
        .database(&database(&serve.folder))
        .admin(&format!("127.0.0.1:{}", serve.admin));
    let with_tls = program.clone().with("admin.tls_cert", &cert).with("admin.tls_key", &key);
    let answer = eventually("the process to be ready", || async {
        with_tls.run(&["health"], None).await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(answer.trim(), "ready");
    assert!(program.run(&["health"], None).await.is_err(), "plain http");
    serve.stop().await;
}
