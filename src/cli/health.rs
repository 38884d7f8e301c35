//! `health`: asks the process on this machine whether it is ready. For a container's HEALTHCHECK.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::output::{Answered, Output};
use crate::settings::Settings;

const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Health {
    ready: bool,
    http_status: u16,
}

pub async fn run(settings: &Settings, out: &Output) -> anyhow::Result<()> {
    let url = format!("http://{}/readyz", reachable(settings.admin.listen));
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    let answer = client.get(&url).send().await.map_err(super::check::explain).with_context(|| url.clone())?;
    let health = Health { ready: answer.status().is_success(), http_status: answer.status().as_u16() };
    out.answer(&health, |health| if health.ready { "ready".into() } else { "not ready".into() })?;
    match health.ready {
        true => Ok(()),
        false => Err(Answered(format!("{url}: not ready (HTTP {})", health.http_status)).into()),
    }
}

/// Return the address under which this machine reaches a listener; a listener on every address is on loopback
/// too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let loopback = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(loopback, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.1.2.3:9090", "10.1.2.3:9090"),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }
}
