//! The caller of a request over HTTP, as far as its address tells.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{Extensions, HeaderMap};

use super::ClientAddress;

/// The address of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// In its canonical form.
    pub address: IpAddr,
    /// Whether the address is that of a proxy that is not trusted, which stands for many callers.
    pub is_unknown_proxy: bool,
}

impl Caller {
    /// Return the caller of a request. One that came over no network is on this machine.
    pub fn of(extensions: &Extensions, headers: &HeaderMap) -> Caller {
        let here = ClientAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let client = extensions.get::<ClientAddress>().copied().unwrap_or(here);
        Caller { address: client.0.to_canonical(), is_unknown_proxy: client.is_of_unknown_proxy(headers) }
    }
}
