//! The program's connections to Graph, RabbitMQ and PostgreSQL over TLS: whose certificate is taken.

use std::time::Duration;

use meta_dispatch::broker::rabbitmq::reach::reach;
use meta_dispatch::graph::GraphClient;
use meta_dispatch::settings::{Plaintext, Settings};
use meta_dispatch::store::postgres::PostgresStore;
use meta_dispatch::store::{SchemaState, SchemaStore};
use rstest::rstest;
use rstest_reuse::{apply, template};
use secrecy::ExposeSecret;

use super::{Scene, Shown};
use crate::support::database::Database;
use crate::support::install_crypto;
use crate::support::rabbitmq::Vhost;
use crate::support::tls_host::{Behind, Opening, TlsHost};

const WITHIN: Duration = Duration::from_secs(20);
/// An answer in Graph's envelope.
const ANSWER: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\n\r\n{\"error\":{}}";

fn settings(given: &[(&str, &str)]) -> Settings {
    let given = given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Settings::load_with(None, given).expect("the settings are right")
}

#[template]
#[rstest]
#[case::good(Shown::Good)]
#[case::expired(Shown::Expired)]
#[case::of_another_host(Shown::OfAnotherHost)]
#[case::of_unknown_issuer(Shown::OfUnknownIssuer)]
#[tokio::test(flavor = "multi_thread")]
async fn each_certificate(#[case] shown: Shown) {}

#[apply(each_certificate)]
async fn graph_needs_a_good_certificate(#[case] shown: Shown) {
    install_crypto();
    let scene = Scene::with(shown);
    let host = TlsHost::start(&scene.files, Opening::Tls, Behind::Answer(ANSWER)).await;
    let base_url = format!("https://{}/v25.0", host.address);
    let ca = scene.ca.display().to_string();
    let given = [("graph.base_url", base_url.as_str()), ("graph.ca_file", ca.as_str())];
    let client = GraphClient::new(&settings(&given).graph).expect("a client");
    let is_good = shown == Shown::Good;
    assert_eq!(client.answers(WITHIN).await, is_good);
    assert_eq!(host.handshakes() > 0, is_good);
}

#[apply(each_certificate)]
async fn broker_needs_a_good_certificate(#[case] shown: Shown) {
    install_crypto();
    let scene = Scene::with(shown);
    let host = TlsHost::start(&scene.files, Opening::Tls, Behind::Nothing).await;
    let url = format!("amqps://guest:s3cret@{}/%2f", host.address);
    let ca = scene.ca.display().to_string();
    let given = [("broker.url", url.as_str()), ("broker.ca_file", ca.as_str())];
    let error = reach(&settings(&given).broker, WITHIN).await.expect_err("no broker is behind");
    let is_good = shown == Shown::Good;
    assert_eq!(error.contains("certificate"), !is_good, "{error}");
    assert_eq!(host.handshakes() > 0, is_good, "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[apply(each_certificate)]
async fn database_needs_a_good_certificate(#[case] shown: Shown) {
    install_crypto();
    let scene = Scene::with(shown);
    let host = TlsHost::start(&scene.files, Opening::Postgres, Behind::Nothing).await;
    let url = format!(
        "postgres://worker:s3cret@{}/log?sslmode=verify-full&sslrootcert={}",
        host.address,
        scene.ca.display()
    );
    let store = PostgresStore::open(&url.into(), 8, Plaintext::Never).expect("the URL is right");
    let error = store.schema().await.expect_err("no server is behind").to_string();
    let is_good = shown == Shown::Good;
    assert_eq!(error.contains("certificate"), !is_good, "{error}");
    assert_eq!(host.handshakes() > 0, is_good, "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn log_is_kept_over_a_checked_connection() {
    install_crypto();
    let database = Database::create().await;
    let scene = Scene::with(Shown::Good);
    let behind = Behind::Server(database.server());
    let host = TlsHost::start(&scene.files, Opening::Postgres, behind).await;
    let url = database.url_at(host.address);
    let url = format!("{url}?sslmode=verify-full&sslrootcert={}", scene.ca.display());
    let store = PostgresStore::open(&url.into(), 8, Plaintext::Never).expect("the URL is right");
    store.migrate().await.expect("a fresh database can be migrated");
    assert_eq!(store.schema().await.expect("it answers"), SchemaState::Current);
    assert!(host.handshakes() > 0);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn broker_answers_over_a_checked_connection() {
    install_crypto();
    let vhost = Vhost::lease().await;
    let scene = Scene::with(Shown::Good);
    let (name, port) = vhost.server();
    let behind = Behind::Server(format!("{name}:{port}"));
    let host = TlsHost::start(&scene.files, Opening::Tls, behind).await;
    let url = vhost.url_at(host.address).expose_secret().replacen("amqp://", "amqps://", 1);
    let ca = scene.ca.display().to_string();
    let given = [("broker.url", url.as_str()), ("broker.ca_file", ca.as_str())];
    reach(&settings(&given).broker, WITHIN).await.expect("it answers");
    assert_eq!(host.handshakes(), 1);
}
