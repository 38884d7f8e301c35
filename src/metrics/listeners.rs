//! The metrics of the listeners: connections that were closed, banned addresses, certificates.

use metrics::{Counter, Gauge};

use super::names;
use super::series::of;

/// The listeners that may speak TLS, by the section of their settings.
const LISTENERS: [&str; 2] = ["http", "admin"];

/// The connections that were closed for a limit, and banned addresses.
pub struct HttpMetrics {
    /// Connections closed at once, as their address held as many as it may.
    pub over_address: Counter,
    /// Connections closed at once, as the listener held as many as it may.
    pub over_all: Counter,
    /// Idle connections closed for an address that held fewer.
    pub displaced: Counter,
    /// Connections whose client did not read its answer.
    pub unread: Counter,
    /// Banned addresses, as this process knows them: those of all processes.
    pub banned: Gauge,
}

/// The certificates of the listeners.
pub struct TlsMetrics {
    loaded: [(&'static str, Counter); LISTENERS.len()],
    refused: [(&'static str, Counter); LISTENERS.len()],
    ends: [(&'static str, Gauge); LISTENERS.len()],
}

impl HttpMetrics {
    pub(super) fn new() -> HttpMetrics {
        let closed = |limit: &'static str| metrics::counter!(names::CONNECTIONS_CLOSED, "limit" => limit);
        HttpMetrics {
            over_address: closed("address"),
            over_all: closed("all"),
            displaced: closed("displaced"),
            unread: closed("unread"),
            banned: metrics::gauge!(names::BANNED),
        }
    }
}

impl TlsMetrics {
    pub(super) fn new() -> TlsMetrics {
        let loads = |outcome: &'static str| {
            LISTENERS.map(|name| {
                let labels = [("listener", name), ("outcome", outcome)];
                (name, metrics::counter!(names::CERTIFICATE_LOADS, &labels))
            })
        };
        TlsMetrics {
            loaded: loads("loaded"),
            refused: loads("refused"),
            ends: LISTENERS.map(|name| (name, metrics::gauge!(names::CERTIFICATE_ENDS, "listener" => name))),
        }
    }

    /// Count a changed certificate of a listener as in use.
    pub fn loaded(&self, listener: &'static str) {
        if let Some(counter) = of(&self.loaded, listener) {
            counter.increment(1);
        }
    }

    /// Count a changed certificate of a listener as refused.
    pub fn refused(&self, listener: &'static str) {
        if let Some(counter) = of(&self.refused, listener) {
            counter.increment(1);
        }
    }

    /// Note when the certificate of a listener ends, in Unix seconds.
    pub fn ends(&self, listener: &'static str, at: i64) {
        if let Some(gauge) = of(&self.ends, listener) {
            gauge.set(at as f64);
        }
    }
}
