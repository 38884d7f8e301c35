//! One connection to RabbitMQ, and the loop that always opens a new one.
//!
//! lapin's own recovery is off: it covers lost connections only, not a channel that the broker closed nor a
//! consumer that it cancelled. Here a session runs until its first failure of any kind, and then everything
//! is opened anew, after 200 ms at first and 5 s at most, for ever.

use std::borrow::Cow;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::super::BrokerError;
use crate::policy::{Backoff, spread};
use crate::settings::{BrokerSettings, Plaintext};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds, unless the URL names another value. The connection is given up after two silent intervals.
const HEARTBEAT: u16 = 15;
/// Delays between connections.
const DELAYS: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
    #[error("no answer to {0} in time")]
    Timeout(&'static str),
    #[error("the broker refused a job for {0}")]
    Refused(String),
    #[error("the broker ended the consumer of {0} (was the queue deleted?)")]
    ConsumerEnded(String),
    #[error("the connection or its channel is closed")]
    Closed,
}

/// The address of the broker, with the password; `Display` does not show the password.
#[derive(Clone)]
pub(super) struct Endpoint(Arc<Address>);

struct Address {
    uri: AMQPUri,
    /// The authorities that are trusted besides those of the system.
    tls: OwnedTLSConfig,
    /// The rule for the addresses of the host.
    plaintext: Plaintext,
}

impl Endpoint {
    /// Read the URL and the authorities.
    pub(super) fn of(settings: &BrokerSettings) -> Result<Endpoint, BrokerError> {
        let url = &settings.url;
        let wrong = |reason: String| BrokerError::Url(reason);
        // The URL is parsed twice: lapin's parser reads the options, but shows the URL in one of its errors
        // and takes an IPv6 address for localhost. The url crate's errors never show the parsed text.
        let parsed = url::Url::parse(url.expose_secret()).map_err(|error| wrong(error.to_string()))?;
        if !matches!(parsed.scheme(), "amqp" | "amqps") {
            return Err(wrong("the scheme must be amqp or amqps".into()));
        }
        if parsed.cannot_be_a_base() || !parsed.has_host() {
            return Err(wrong("no host".into()));
        }
        let mut uri: AMQPUri = url.expose_secret().parse().map_err(wrong)?;
        if let Some(url::Host::Ipv6(address)) = parsed.host() {
            uri.authority.host = address.to_string();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let tls = OwnedTLSConfig { cert_chain: settings.authorities()?, ..OwnedTLSConfig::default() };
        let plaintext = match uri.scheme {
            AMQPScheme::AMQP => settings.plaintext,
            AMQPScheme::AMQPS => Plaintext::Anywhere,
        };
        Ok(Endpoint(Arc::new(Address { uri, tls, plaintext })))
    }

    /// Connect, sign in and open the connection, or fail within seconds.
    pub(super) async fn connect(&self, purpose: &str) -> Result<Link, SessionError> {
        let runtime = lapin::runtime::default_runtime()?;
        let Address { uri, tls, plaintext } = &*self.0;
        let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
        let (stream, socket) = timeout(CONNECT_TIMEOUT, async {
            let addresses = plaintext.look_up(host, port).await?;
            let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
            let AsyncTcpStream::Plain(plain) = &stream else {
                return Err(io::Error::other("a fresh connection is plain"));
            };
            let socket = Socket(TcpStream::from(plain.get_ref().as_fd().try_clone_to_owned()?));
            let stream = match uri.scheme {
                AMQPScheme::AMQP => stream,
                AMQPScheme::AMQPS => stream.into_tls(host, tls.as_ref()).await?,
            };
            Ok((stream, socket))
        })
        .await
        .map_err(|_| SessionError::Timeout("connecting"))??;

        let properties =
            ConnectionProperties::default().with_connection_name(format!("meta-dispatch {purpose}").into());
        let stream = Mutex::new(Some(stream));
        let only_once = move |_, _| {
            let stream = stream.lock().take();
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into()) }
        };
        let uri = uri.clone();
        let connection = timeout(CONNECT_TIMEOUT, Connection::connector(uri, runtime, only_once, properties))
            .await
            .map_err(|_| SessionError::Timeout("signing in"))??;
        Ok(Link { connection, channels: Mutex::default(), _socket: socket })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AMQPUri { authority, vhost, .. } = &self.0.uri;
        write!(f, "{}:{} vhost {vhost}", authority.host, authority.port)
    }
}

/// A second handle on a connection's socket that cuts the connection when dropped. lapin's thread otherwise
/// outlives a handshake that was given up, and a connection that the broker has blocked, for as long as the
/// peer stays silent.
struct Socket(TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // Fails only when the peer has already closed the socket.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// An open connection; cut when dropped.
pub(super) struct Link {
    connection: Connection,
    /// Open channels are held to the end: lapin closes a dropped channel in the background, and reports an
    /// error of the connection when the connection is closed first.
    channels: Mutex<Vec<Channel>>,
    _socket: Socket,
}

impl Link {
    pub(super) async fn channel(&self) -> Result<Channel, SessionError> {
        let channel = timeout(CONNECT_TIMEOUT, self.connection.create_channel())
            .await
            .map_err(|_| SessionError::Timeout("opening a channel"))??;
        let mut channels = self.channels.lock();
        channels.retain(|channel| channel.status().connected());
        channels.push(channel.clone());
        Ok(channel)
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.status().connected()
    }

    pub(super) fn events(&self) -> impl Stream<Item = Event> + Send + Unpin + 'static {
        Box::pin(self.connection.events_listener())
    }

    pub(super) async fn close(self) {
        // An error means that the connection is already closed; a timeout, that the peer is silent. Both end
        // in the drop.
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(200, "OK".into())).await;
    }
}

/// The work on a connection while there is one.
#[async_trait]
pub(super) trait Session: Send {
    /// Such as `publishing`: for logs and for RabbitMQ's list of connections.
    fn purpose(&self) -> Cow<'static, str>;

    /// Wait until a connection is needed.
    async fn needed(&mut self) {}

    /// Run until the first failure, or until `stop` and the work that `stop` leaves.
    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError>;

    /// Record whether there is a connection.
    fn connected(&self, connected: bool);

    /// Return the longest wait before the next connection, where the previous session gives a reason for one. Zero
    /// means that the broker has not failed: the next connection follows at once. Called after each attempt: an
    /// attempt that found no broker waits its full time.
    fn longest_delay(&mut self) -> Option<Duration> {
        None
    }
}

/// Keep a session running until `stop`.
pub(super) async fn supervise<S: Session>(endpoint: Endpoint, mut session: S, stop: CancellationToken) {
    let mut failures = 0;
    let mut follows_at_once = false;
    while stop.run_until_cancelled(session.needed()).await.is_some() {
        let began = Instant::now();
        let Err(error) = run_once(&endpoint, &mut session, &stop, follows_at_once).await else { return };
        if began.elapsed() > 2 * DELAYS.cap {
            failures = 0;
        }
        let longest = session.longest_delay().unwrap_or(DELAYS.cap);
        follows_at_once = longest.is_zero();
        if follows_at_once {
            tracing::debug!(broker = %endpoint, %error, "RabbitMQ: {} interrupted; retrying at once", session.purpose());
            continue;
        }
        let delay = delay(failures, rand::random()).min(longest);
        failures += 1;
        tracing::warn!(broker = %endpoint, %error, retry_in_seconds = delay.as_secs_f64(), "RabbitMQ: {} interrupted; retrying", session.purpose());
        stop.run_until_cancelled(tokio::time::sleep(delay)).await;
    }
}

async fn run_once<S: Session>(
    endpoint: &Endpoint,
    session: &mut S,
    stop: &CancellationToken,
    follows_at_once: bool,
) -> Result<(), SessionError> {
    let purpose = session.purpose();
    let Some(link) = stop.run_until_cancelled(endpoint.connect(&purpose)).await.transpose()? else {
        return Ok(());
    };
    if follows_at_once {
        tracing::debug!(broker = %endpoint, "RabbitMQ: connected again for {purpose}");
    } else {
        tracing::info!(broker = %endpoint, "RabbitMQ: connected for {purpose}");
    }
    session.connected(true);
    let ended = session.run(&link, stop).await;
    session.connected(false);
    link.close().await;
    ended
}

/// Wait for the first message of a session that needs no connection before.
pub(super) async fn first_of<T>(next: &mut Option<T>, waiting: &mut mpsc::Receiver<T>) {
    if next.is_none() {
        *next = match waiting.recv().await {
            Some(message) => Some(message),
            // The broker is given up: its stop ends the wait.
            None => std::future::pending().await,
        };
    }
}

/// Return the delay before the next connection. The upper half of each delay is random: processes that lost
/// the same broker do not return all at once.
fn delay(failures: u32, random: f64) -> Duration {
    spread(DELAYS.delay(failures), 0.5..=1.0, random).max(DELAYS.base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn parse(url: &str) -> Result<Endpoint, BrokerError> {
        let defaults = Settings::load_with(None, Vec::new()).unwrap();
        Endpoint::of(&BrokerSettings { url: url.into(), ..defaults.broker })
    }

    #[test]
    fn url_is_read_with_a_default_heartbeat() {
        let endpoint = parse("amqps://u:p@broker.example:5999/t1").unwrap();
        assert_eq!(endpoint.to_string(), "broker.example:5999 vhost t1");
        assert_eq!(endpoint.0.uri.query.heartbeat, Some(15));
        assert_eq!(parse("amqp://h/%2f?heartbeat=7").unwrap().0.uri.query.heartbeat, Some(7));
        assert_eq!(parse("amqp://[::1]/%2f").unwrap().to_string(), "::1:5672 vhost /");
    }

    #[tokio::test]
    async fn plain_text_to_a_public_address_is_refused_before_connecting() {
        let endpoint = parse("amqp://guest:s3cret@203.0.113.9/%2f").unwrap();
        let error = endpoint.connect("tests").await.err().expect("it is refused").to_string();
        assert!(error.starts_with("cannot connect: plain text to 203.0.113.9 is refused"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn missing_authorities_are_refused_by_their_key() {
        let defaults = Settings::load_with(None, Vec::new()).unwrap().broker;
        let url = "amqps://u:s3cret@broker.example/%2f".into();
        let error = Endpoint::of(&BrokerSettings { url, ca_file: "/nowhere/ca.pem".into(), ..defaults });
        let error = error.err().expect("it is refused").to_string();
        assert!(error.starts_with("setting broker.ca_file: /nowhere/ca.pem: cannot be read"), "{error}");
    }

    #[test]
    fn malformed_url_is_refused_without_its_password() {
        for url in [
            "amqp:guest:s3cret@h",
            "amqp://u:s3cret@h:port/",
            "http://u:s3cret@h/",
            "amqp://u:s3cret@h/%2f?heartbeat=s3cretly",
            "s3cret",
            "amqp://",
        ] {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} was accepted")).to_string();
            assert!(error.contains("broker.url"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn delays_grow_from_200_ms_to_5_s() {
        let millis = |random| [0, 1, 2, 4, 5, 40].map(|failures| delay(failures, random).as_millis());
        assert_eq!(millis(0.0), [200, 200, 400, 1_600, 2_500, 2_500]);
        assert_eq!(millis(1.0), [200, 400, 800, 3_200, 5_000, 5_000]);
    }
}
