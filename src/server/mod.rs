//! Drives HTTP/1.1 connections: for the send endpoints and the admin listener.
//!
//! Not `axum::serve`, which installs no timer, so that a client could hold a connection for ever by sending its
//! headers slowly. Knows nothing of what is served.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Incomplete request headers are cut after this (contract 2).
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a request line and headers; a longer one is answered 431.
const HEADER_ROOM: usize = 128 * 1024;
/// Headers a request may have.
const MOST_HEADERS: usize = 100;
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// Serves `router` until `stop`, then finishes the requests in flight. A client that sends or reads no further would keep
/// its request in flight for ever: the connections that are left are cut when the future is dropped.
///
/// An address that holds `per_address` connections is refused further ones.
pub async fn serve(listener: TcpListener, router: Router, per_address: usize, stop: CancellationToken) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_ROOM)
        .max_headers(MOST_HEADERS);
    let service = TowerToHyperService::new(router);
    let open = GracefulShutdown::new();
    let addresses = Addresses::new(per_address);
    // Its connections are aborted when it is dropped.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // A connection that panicked was reported by the panic hook.
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
        // Answers are small: they must not wait for more to send.
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
struct Addresses {
    most: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place; given back when dropped.
struct Place {
    address: IpAddr,
    addresses: Addresses,
}

impl Addresses {
    fn new(most: usize) -> Addresses {
        Addresses { most, held: Arc::default() }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { address, addresses: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.addresses.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}
