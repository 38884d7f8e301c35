//! A listener at work: connections are accepted, held and cut, and their requests are answered.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::client_address::is_among;
use super::super::http::refused;
use super::super::{ClientAddress, Refused, Tls};
use super::connection::{AnswerBody, ConnectionPhase, ConnectionState};
use super::limits::{ConnectionLimits, Place, Places};
use super::write_timeout::{self, TimedStream};

/// Incomplete request headers are cut after this time (contract: "HTTP: the two send endpoints").
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a request line and headers; a longer head is answered 431.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// How many headers a request may have.
const MAX_HEADERS: usize = 100;
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);
/// How long a stop waits for the rest of a head that has begun to arrive.
const HEAD_AT_STOP: Duration = Duration::from_secs(2);

/// The socket of a listener.
pub enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The options of a listener.
pub struct ServeOptions {
    /// The name of the listener, for the log.
    pub listener: &'static str,
    pub limits: ConnectionLimits,
    /// Peers whose `X-Forwarded-For` names the client.
    pub trusted_proxies: Vec<IpNet>,
    /// Over TCP; `None`: plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// A connection that was accepted.
enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The state that the connections of a listener share.
struct Server {
    http: http1::Builder,
    service: TowerToHyperService<Router>,
    options: ServeOptions,
    stop: CancellationToken,
}

/// Serve `router` until `stop`, then finish the requests in flight. A client that sends nothing more would keep
/// its request in flight for ever: the remaining connections are cut when the future is dropped.
///
/// Each request has a [`ClientAddress`] among its extensions. A connection without a place is closed at once.
pub async fn serve(listener: Listening, router: Router, options: ServeOptions, stop: CancellationToken) {
    let places = Places::new(options.listener, options.limits);
    let server = Arc::new(Server {
        http: http(),
        service: TowerToHyperService::new(router),
        options,
        stop: stop.clone(),
    });
    // The connections are aborted when the set is dropped.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The panic hook has reported a connection that panicked.
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: retrying");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                continue;
            }
        };
        let is_proxy = is_among(peer, &server.options.trusted_proxies);
        let Some(place) = places.take(peer, is_proxy) else { continue };
        connections.spawn(server.clone().hold(stream, peer, place));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    http
}

impl Listening {
    /// Accept a connection; return it with its peer's address in canonical form. The peer of a Unix socket is on
    /// this machine.
    async fn accept(&self) -> io::Result<(Accepted, IpAddr)> {
        match self {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Accepted::Tcp(stream), peer.ip().to_canonical()))
            }
            Listening::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream), IpAddr::V4(Ipv4Addr::LOCALHOST)))
            }
        }
    }
}

impl Server {
    /// Hold a connection until it ends, is taken away, or the process stops.
    async fn hold(self: Arc<Self>, stream: Accepted, peer: IpAddr, place: Place) {
        match (stream, &self.options.tls) {
            (Accepted::Tcp(stream), Some(tls)) => {
                write_timeout::prepare(&stream);
                let secured = tokio::select! {
                    secured = tls.accept(stream) => secured,
                    () = place.state().taken_away() => return,
                    () = self.stop.cancelled() => return,
                };
                match secured {
                    Ok(stream) => self.converse(stream, peer, place.state()).await,
                    Err(error) => tracing::debug!(%peer, %error, "TLS handshake failed: connection closed"),
                }
            }
            (Accepted::Tcp(stream), None) => {
                write_timeout::prepare(&stream);
                self.converse(stream, peer, place.state()).await;
            }
            (Accepted::Unix(stream), _) => self.converse(stream, peer, place.state()).await,
        }
    }

    /// Serve the requests of a connection.
    async fn converse<S>(self: &Arc<Self>, stream: S, peer: IpAddr, state: &Arc<ConnectionState>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TimedStream::new(stream, state.clone(), self.stop.clone());
        let (server, connection) = (self.clone(), state.clone());
        let service = service_fn(move |request| {
            let (server, connection) = (server.clone(), connection.clone());
            async move { Ok::<_, Infallible>(server.answer(request, peer, &connection).await) }
        });
        let mut exchange = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = exchange.as_mut() => return report(peer, ended),
            () = state.taken_away() => {
                // A head that has arrived meanwhile is answered: its client would not know what became of it.
                if state.waits_for_client() {
                    return;
                }
            }
            () = self.stop.cancelled() => {}
        }
        exchange.as_mut().graceful_shutdown();
        match timeout(HEAD_AT_STOP, exchange.as_mut()).await {
            Ok(ended) => report(peer, ended),
            Err(_) if state.waits_for_head() => {}
            Err(_) => report(peer, exchange.await),
        }
    }

    /// Answer a request. Each answer is marked, also where the router was not asked.
    async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: IpAddr,
        connection: &Arc<ConnectionState>,
    ) -> Response<AnswerBody> {
        let in_flight = connection.begin_request(!request.body().is_end_stream());
        let mut response = match host_is_given_once(request.version(), request.headers()) {
            Ok(()) => {
                let client = ClientAddress::of(peer, request.headers(), &self.options.trusted_proxies);
                request.extensions_mut().insert(client);
                request.extensions_mut().insert(ConnectionPhase::of(connection));
                let request = request.map(|body| in_flight.arriving(body));
                let Ok(response) = self.service.call(request).await;
                response
            }
            Err(reason) => {
                let mut response = refused(reason);
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                response
            }
        };
        in_flight.begin_answer();
        mark(response.headers_mut());
        response.map(|body| in_flight.answering(body))
    }
}

fn report(peer: IpAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Refuse a request that names no host or several (RFC 9112, 3.2): the proxies on its way may have understood
/// another one.
fn host_is_given_once(version: Version, headers: &HeaderMap) -> Result<(), Refused> {
    match headers.get_all(header::HOST).iter().count() {
        1 => Ok(()),
        0 if version < Version::HTTP_11 => Ok(()),
        0 => Err(Refused::malformed("The request has no header Host: send it once")),
        _ => Err(Refused::malformed("The request has several headers Host: send it once")),
    }
}

/// Mark an answer: never stored, as tokens may stand in its URL, and never read as another type than its own.
fn mark(headers: &mut HeaderMap) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Version::HTTP_11, &["a"], true)]
    #[case(Version::HTTP_11, &[""], true)]
    #[case(Version::HTTP_11, &[], false)]
    #[case(Version::HTTP_11, &["a", "a"], false)]
    #[case(Version::HTTP_10, &[], true)]
    #[case(Version::HTTP_10, &["a", "b"], false)]
    fn host_is_needed_once(
        #[case] version: Version,
        #[case] hosts: &[&'static str],
        #[case] is_served: bool,
    ) {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        assert_eq!(host_is_given_once(version, &headers).is_ok(), is_served);
    }

    #[test]
    fn cache_control_of_an_answer_stays() {
        let mut headers = HeaderMap::new();
        mark(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        mark(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "max-age=60");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
