//! `health`: asks the process on this machine whether it is ready. For a container's HEALTHCHECK.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use reqwest::tls::TlsInfo;
use reqwest::{Client, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use super::check::explain;
use super::output::{Answered, Output};
use crate::settings::{AdminAddress, Settings, TlsFiles};

const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Health {
    ready: bool,
    http_status: u16,
}

pub async fn run(settings: &Settings, out: &Output) -> anyhow::Result<()> {
    let admin = &settings.admin;
    let client = Client::builder().timeout(TIMEOUT).no_proxy();
    let (client, host, is_loopback) = match &admin.listen {
        AdminAddress::Tcp(listen) => {
            let address = reachable(*listen);
            (client, address.to_string(), address.ip().to_canonical().is_loopback())
        }
        AdminAddress::Unix(path) => (client.unix_socket(path.as_path()), "localhost".to_owned(), true),
    };
    let (scheme, client) = match (&admin.listen, admin.tls()) {
        // A socket speaks no TLS.
        (AdminAddress::Unix(_), _) | (_, None) => ("http", client),
        // A certificate rarely names the address of its listener. On loopback only this machine can answer, and
        // beyond it the certificate has to be the one of the settings.
        (_, Some(_)) => ("https", client.tls_danger_accept_invalid_certs(true).tls_info(true)),
    };
    let url = format!("{scheme}://{host}/readyz");
    let answer = client.build()?.get(&url).send().await.map_err(explain).with_context(|| url.clone())?;
    if let Some(files) = admin.tls()
        && !is_loopback
    {
        check_certificate(&answer, files)?;
    }
    let health = Health { ready: answer.status().is_success(), http_status: answer.status().as_u16() };
    out.answer(&health, |health| if health.ready { "ready".into() } else { "not ready".into() })?;
    match health.ready {
        true => Ok(()),
        false => Err(Answered(format!("{url}: not ready (HTTP {})", health.http_status)).into()),
    }
}

/// Check that the answer is from the holder of the listener's certificate.
fn check_certificate(answer: &Response, files: TlsFiles<'_>) -> anyhow::Result<()> {
    let own = CertificateDer::from_pem_file(files.cert)
        .map_err(|_| anyhow!("setting admin.tls_cert: {}: holds no certificate", files.cert.display()))?;
    let shown = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    ensure!(
        shown == Some(own.as_ref()),
        "the listener shows another certificate than that of admin.tls_cert: a changed file is in use after \
         30 seconds"
    );
    Ok(())
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
