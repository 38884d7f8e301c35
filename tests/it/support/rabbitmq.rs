//! A virtual host of RabbitMQ for each test.
//!
//! `TEST_AMQP_URL` names the server; `TEST_AMQP_VHOSTS` may hold names of virtual hosts prepared there,
//! separated by commas. A test leases one for itself and waits while all are taken; with none prepared, tests
//! take turns on the one in the URL. File locks hold across processes and end with their process.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Channel, Connection, ConnectionProperties};
use meta_dispatch::broker::grants::{Rights, TopicRights};
use meta_dispatch::domain::Partition;
use meta_dispatch::settings::{BrokerSettings, Settings};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::not_set;

/// Return the settings of a broker at this URL.
pub fn settings(url: &SecretString) -> BrokerSettings {
    let given = vec![("broker.url".to_owned(), url.expose_secret().to_owned())];
    Settings::load_with(None, given).expect("the URL is right").broker
}

/// A virtual host without the program's queues, leased until dropped.
pub struct Vhost {
    url: Url,
    _lease: File,
}

impl Vhost {
    pub async fn lease() -> Vhost {
        let candidates = candidates();
        let (url, lease) = loop {
            if let Some(free) = candidates.iter().find_map(|url| Some((url.clone(), try_lock(url)?))) {
                break free;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let vhost = Vhost { url, _lease: lease };
        vhost.delete_queues().await;
        vhost
    }

    pub fn url(&self) -> SecretString {
        self.url.as_str().into()
    }

    /// Return the URL of the same virtual host at another address. Silence is noticed after two heartbeats of
    /// 4 s.
    pub fn url_at(&self, address: SocketAddr) -> SecretString {
        let mut url = self.url.clone();
        url.set_host(Some(&address.ip().to_string())).expect("an address is a host");
        url.set_port(Some(address.port())).expect("an amqp URL has a port");
        url.set_query(Some("heartbeat=4"));
        url.as_str().into()
    }

    /// Return the host and port of the server.
    pub fn server(&self) -> (String, u16) {
        (self.url.host_str().expect("checked when leased").to_owned(), self.url.port().unwrap_or(5672))
    }

    /// Set a policy on the queues of this virtual host whose names match.
    pub fn set_policy(&self, name: &str, queues: &str, definition: &str) {
        self.control(&["set_policy", name, queues, definition, "--apply-to", "queues"]);
    }

    pub fn clear_policy(&self, name: &str) {
        self.control(&["clear_policy", name]);
    }

    /// Return the server's names for the connections that the program's processes hold here for `purpose`, in
    /// no order.
    pub fn connections(&self, purpose: &str) -> BTreeSet<String> {
        let client = format!("meta-dispatch {purpose}");
        control(&["list_connections", "vhost", "pid", "client_properties"])
            .lines()
            .filter(|line| line.contains(&client))
            .filter_map(|line| line.strip_prefix(&self.name())?.strip_prefix('\t')?.split('\t').next())
            .map(str::to_owned)
            .collect()
    }

    /// Add a user, with the rights that its name gives it on this virtual host and none elsewhere.
    pub fn user(&self, rights: impl FnOnce(&str) -> Rights) -> User {
        self.user_with(&uuid::Uuid::now_v7().to_string(), rights)
    }

    /// Add a user with this password.
    pub fn user_with(&self, password: &str, rights: impl FnOnce(&str) -> Rights) -> User {
        let name = format!("test-{}", uuid::Uuid::now_v7().simple());
        let rights = rights(&name);
        control(&["add_user", &name, password]);
        // Made first, so that the user is deleted whatever happens next.
        let user = User { url: self.url_of(&name, password), name };
        let Rights { configure, write, read, topics } = &rights;
        self.control(&["set_permissions", &user.name, configure, write, read]);
        for TopicRights { exchange, write, read } in topics {
            self.control(&["set_topic_permissions", &user.name, exchange, write, read]);
        }
        user
    }

    /// Delete what the program has declared for the submissions of this user.
    pub async fn forget(&self, user: &User) {
        let (connection, channel) = self.connect().await;
        let queue = format!("cdls.submit.{}", user.name);
        let deleted = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
        deleted.expect("a queue may be absent");
        for exchange in [queue, format!("cdls.unrouted.{}", user.name)] {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(exchange.into(), options).await.expect("an exchange may be absent");
        }
        connection.close(200, "OK".into()).await.expect("a clean close");
    }

    fn url_of(&self, name: &str, password: &str) -> Url {
        let mut url = self.url.clone();
        url.set_username(name).expect("an amqp URL has a user");
        url.set_password(Some(password)).expect("and a password");
        url
    }

    fn control(&self, arguments: &[&str]) {
        control(&[&["-p", &self.name()], arguments].concat());
    }

    fn name(&self) -> String {
        self.url.path().trim_start_matches('/').replace("%2f", "/")
    }

    /// Delete everything of the program on this virtual host.
    pub async fn wipe(&self) {
        self.delete_queues().await;
        let (connection, channel) = self.connect().await;
        for exchange in ["cdls.submit", "cdls.unrouted", "cdls.events", "cdls.inbound"] {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(exchange.into(), options).await.expect("an exchange may be absent");
        }
        connection.close(200, "OK".into()).await.expect("a clean close");
    }

    /// Open a plain connection beside those under test. The channel lives as long as the connection.
    pub async fn connect(&self) -> (Connection, Channel) {
        let connection = Connection::connect(self.url.as_str(), ConnectionProperties::default())
            .await
            .unwrap_or_else(|error| panic!("TEST_AMQP_URL: {error}; run tests/run"));
        let channel = connection.create_channel().await.expect("a channel");
        (connection, channel)
    }

    async fn delete_queues(&self) {
        let (connection, channel) = self.connect().await;
        let work = Partition::all().map(|partition| format!("cdls.work.{partition}"));
        let public = [
            "cdls.submit",
            "cdls.rejected",
            "cdls.rejected.unauthenticated",
            "cdls.unreadable",
            "cdls.webhooks",
            "cdls.webhooks.aside",
        ]
        .map(str::to_owned);
        let deleted =
            work.chain(public).map(|queue| channel.queue_delete(queue.into(), QueueDeleteOptions::default()));
        for deleted in join_all(deleted).await {
            deleted.expect("deleting a queue that may be absent");
        }
        connection.close(200, "OK".into()).await.expect("a clean close");
    }
}

/// A virtual host of one test, which may be deleted with its contents. Gone at the end of the test.
pub struct OwnVhost {
    name: String,
    url: Url,
}

impl OwnVhost {
    pub fn make() -> OwnVhost {
        let name = format!("test-{}", uuid::Uuid::now_v7().simple());
        let mut url = candidates().swap_remove(0);
        url.set_path(&name);
        let vhost = OwnVhost { name, url };
        vhost.make_again();
        vhost
    }

    pub fn url(&self) -> SecretString {
        self.url.as_str().into()
    }

    pub fn delete(&self) {
        control(&["delete_vhost", &self.name]);
    }

    pub fn make_again(&self) {
        let user = Some(self.url.username()).filter(|user| !user.is_empty()).unwrap_or("guest");
        control(&["add_vhost", &self.name]);
        control(&["-p", &self.name, "set_permissions", user, ".*", ".*", ".*"]);
    }
}

impl Drop for OwnVhost {
    fn drop(&mut self) {
        self.delete();
    }
}

/// A user of the broker, deleted at the end of the test.
pub struct User {
    pub name: String,
    url: Url,
}

impl User {
    pub fn url(&self) -> SecretString {
        self.url.as_str().into()
    }

    pub async fn connect(&self) -> Connection {
        let properties = ConnectionProperties::default();
        Connection::connect(self.url.as_str(), properties).await.expect("the user may log in")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        control(&["delete_user", &self.name]);
    }
}

/// Run rabbitmqctl; return its output.
fn control(arguments: &[&str]) -> String {
    let program = variable("TEST_RABBITMQCTL").unwrap_or_else(|| not_set("TEST_RABBITMQCTL", "RabbitMQ"));
    let done = std::process::Command::new(program).arg("--quiet").args(arguments).output();
    let done = done.expect("rabbitmqctl runs");
    assert!(done.status.success(), "{}: {}", arguments[0], String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("rabbitmqctl writes UTF-8")
}

/// Return the URL of the tests' server, at the virtual host that its URL names.
pub fn server() -> Url {
    let url = variable("TEST_AMQP_URL").unwrap_or_else(|| not_set("TEST_AMQP_URL", "RabbitMQ"));
    let url: Url = url.parse().expect("TEST_AMQP_URL is a URL");
    assert!(url.has_host(), "TEST_AMQP_URL names no host");
    url
}

fn candidates() -> Vec<Url> {
    let url = server();
    let vhosts = variable("TEST_AMQP_VHOSTS").unwrap_or_default();
    let prepared: Vec<Url> = vhosts
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut url = url.clone();
            url.set_path(name);
            url
        })
        .collect();
    if prepared.is_empty() { vec![url] } else { prepared }
}

fn try_lock(url: &Url) -> Option<File> {
    let place = format!("{}-{}-{}", url.host_str()?, url.port().unwrap_or(5672), url.path());
    let place: String = place.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = std::env::temp_dir().join(format!("meta-dispatch-test-amqp-{place}.lock"));
    let file = File::options().create(true).append(true).open(path).expect("a lock file in the temp dir");
    file.try_lock().ok().map(|()| file)
}

#[expect(clippy::disallowed_methods, reason = "the servers of the tests are named by the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
