//! HTTP/1.1 connections, for the send endpoints and the admin listener.
//!
//! `axum::serve` is not used, because it installs no timer: a client could hold a connection for ever by
//! sending its headers slowly. Never here: the content of requests and answers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Incomplete request headers are cut after this time (contract: "HTTP: the two send endpoints").
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a request line and headers; a longer head is answered 431.
const MAX_HEADER_BYTES: usize = 128 * 1024;
/// How many headers a request may have.
const MAX_HEADERS: usize = 100;
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// Serve `router` until `stop`, then finish the requests in flight. A client that stops sending or reading
/// would keep its request in flight for ever: the remaining connections are cut when the future is dropped.
///
/// An address that holds `per_address` connections is refused further ones.
pub async fn serve(listener: TcpListener, router: Router, per_address: usize, stop: CancellationToken) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    let service = TowerToHyperService::new(router);
    let open = GracefulShutdown::new();
    let addresses = AddressLimit::new(per_address);
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
        let Some(place) = addresses.take(peer.ip()) else { continue };
        // Answers are small and must not wait for more bytes to send.
        let _ = stream.set_nodelay(true);
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// Connections held, by client address.
#[derive(Clone)]
struct AddressLimit {
    most: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place; given back when dropped.
struct ConnectionSlot {
    address: IpAddr,
    addresses: AddressLimit,
}

impl AddressLimit {
    fn new(most: usize) -> AddressLimit {
        AddressLimit { most, held: Arc::default() }
    }

    fn take(&self, address: IpAddr) -> Option<ConnectionSlot> {
        let mut held = self.held.lock();
        let count = held.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(ConnectionSlot { address, addresses: self.clone() })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut held = self.addresses.held.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}
