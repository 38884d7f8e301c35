//! One connection to RabbitMQ, and the loop that always makes a new one.
//!
//! lapin's own recovery is off: it covers lost connections only, not a channel that the broker closed nor a
//! consumer that it cancelled. Here a session runs until its first failure of any kind, and then everything is
//! made anew, after 200 ms at first and 5 s at most, for ever.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::super::BrokerError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds, unless the URL says otherwise. The connection is given up after two of them in silence.
const HEARTBEAT: u16 = 15;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

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

/// Where the broker is. Holds the password; its `Display` does not show it.
#[derive(Clone)]
pub(super) struct Endpoint(Arc<AMQPUri>);

impl Endpoint {
    pub(super) fn parse(url: &SecretString) -> Result<Endpoint, BrokerError> {
        let wrong = |reason: String| BrokerError::Url(reason);
        // Parsed twice: lapin's parser reads the options, but shows the URL in one of its errors and takes an IPv6
        // address for localhost. The url crate's errors never show what was parsed.
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
        Ok(Endpoint(Arc::new(uri)))
    }

    /// Connects, signs in and opens the connection, or fails within seconds.
    async fn connect(&self, purpose: &str) -> Result<Link, SessionError> {
        let runtime = lapin::runtime::default_runtime()?;
        let (host, port) = (self.0.authority.host.clone(), self.0.authority.port);
        let (stream, socket) = timeout(CONNECT_TIMEOUT, async {
            let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
            let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
            let AsyncTcpStream::Plain(plain) = &stream else {
                return Err(io::Error::other("a fresh connection is plain"));
            };
            let socket = Socket(TcpStream::from(plain.get_ref().as_fd().try_clone_to_owned()?));
            let stream = match self.0.scheme {
                AMQPScheme::AMQP => stream,
                AMQPScheme::AMQPS => stream.into_tls(&host, OwnedTLSConfig::default().as_ref()).await?,
            };
            Ok((stream, socket))
        })
        .await
        .map_err(|_| SessionError::Timeout("connecting"))??;

        let properties =
            ConnectionProperties::default().with_connection_name(format!("meta-dispatch {purpose}").into());
        let stream = Mutex::new(Some(stream));
        let only_once = move |_, _| {
            let stream = stream.lock().ok().and_then(|mut stream| stream.take());
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into()) }
        };
        let uri = AMQPUri::clone(&self.0);
        let connection = timeout(CONNECT_TIMEOUT, Connection::connector(uri, runtime, only_once, properties))
            .await
            .map_err(|_| SessionError::Timeout("signing in"))??;
        Ok(Link { connection, channels: Mutex::default(), _socket: socket })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} vhost {}", self.0.authority.host, self.0.authority.port, self.0.vhost)
    }
}

/// A second handle on a connection's socket that cuts it when dropped. lapin's thread otherwise outlives a
/// handshake that was given up, and a connection that the broker has blocked, for as long as the peer stays silent.
struct Socket(TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // Fails only when the peer has closed it already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// An open connection; cut when dropped.
pub(super) struct Link {
    connection: Connection,
    /// Open ones are held to the end: lapin closes a dropped channel in the background, and takes it for an error
    /// of the connection when that one is closed first.
    channels: Mutex<Vec<Channel>>,
    _socket: Socket,
}

impl Link {
    pub(super) async fn channel(&self) -> Result<Channel, SessionError> {
        let channel = timeout(CONNECT_TIMEOUT, self.connection.create_channel())
            .await
            .map_err(|_| SessionError::Timeout("opening a channel"))??;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
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

    async fn close(self) {
        // An error means that it is closed already; a timeout, that the peer is silent. Both end in the drop.
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(200, "OK".into())).await;
    }
}

/// What is done with a connection while there is one.
#[async_trait]
pub(super) trait Session: Send {
    /// Such as `publishing`: for logs and for RabbitMQ's list of connections.
    const PURPOSE: &'static str;

    /// Runs until the first failure, or until `stop` and what has to be done then.
    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError>;

    /// Whether there is a connection.
    fn connected(&self, connected: bool);

    /// How long to wait at most before the next connection, where the session before gives a reason to. Asked after
    /// each attempt, so that one that found no broker waits its full time.
    fn longest_delay(&mut self) -> Option<Duration> {
        None
    }
}

/// Keeps a session running until `stop`.
pub(super) async fn supervise<S: Session>(endpoint: Endpoint, mut session: S, stop: CancellationToken) {
    let mut delays = Delays::default();
    while !stop.is_cancelled() {
        let began = Instant::now();
        let Err(error) = run_once(&endpoint, &mut session, &stop).await else { return };
        if began.elapsed() > 2 * LONGEST_DELAY {
            delays = Delays::default();
        }
        let delay = delays.next().min(session.longest_delay().unwrap_or(LONGEST_DELAY));
        tracing::warn!(broker = %endpoint, %error, retry_in = ?delay, "RabbitMQ: {} interrupted; retrying", S::PURPOSE);
        stop.run_until_cancelled(tokio::time::sleep(delay)).await;
    }
}

async fn run_once<S: Session>(
    endpoint: &Endpoint,
    session: &mut S,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let Some(link) = stop.run_until_cancelled(endpoint.connect(S::PURPOSE)).await.transpose()? else {
        return Ok(());
    };
    tracing::info!(broker = %endpoint, "RabbitMQ: connected for {}", S::PURPOSE);
    session.connected(true);
    let ended = session.run(&link, stop).await;
    session.connected(false);
    link.close().await;
    ended
}

/// Delays between connections: doubling, capped, the upper half of each left to chance so that processes that
/// lost the same broker do not come back all at once.
#[derive(Default)]
struct Delays {
    failures: u32,
}

impl Delays {
    fn next(&mut self) -> Duration {
        let longest = (FIRST_DELAY * (1 << self.failures.min(8))).min(LONGEST_DELAY);
        self.failures += 1;
        longest.mul_f64(rand::random_range(0.5..=1.0)).max(FIRST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, BrokerError> {
        Endpoint::parse(&SecretString::from(url))
    }

    #[test]
    fn a_url_s_parts_are_read_and_the_heartbeat_is_ours_unless_it_is_named() {
        let endpoint = parse("amqps://u:p@broker.example:5999/t1").unwrap();
        assert_eq!(endpoint.to_string(), "broker.example:5999 vhost t1");
        assert_eq!(endpoint.0.query.heartbeat, Some(15));
        assert_eq!(parse("amqp://h/%2f?heartbeat=7").unwrap().0.query.heartbeat, Some(7));
        assert_eq!(parse("amqp://[::1]/%2f").unwrap().to_string(), "::1:5672 vhost /");
    }

    #[test]
    fn a_malformed_url_is_refused_by_name_without_its_password() {
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
        let mut delays = Delays::default();
        let first: Vec<Duration> = (0..40).map(|_| delays.next()).collect();
        assert_eq!(first[0], FIRST_DELAY);
        assert!(first.iter().all(|delay| (FIRST_DELAY..=LONGEST_DELAY).contains(delay)), "{first:?}");
        assert!(first[10..].iter().all(|delay| *delay >= LONGEST_DELAY / 2), "{first:?}");
    }
}
