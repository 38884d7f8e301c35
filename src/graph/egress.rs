//! The way to Graph: direct, or through the proxy of `graph.proxy`, never through a proxy of the environment; and the
//! certificates and addresses that are trusted on it.

use reqwest::{Certificate, ClientBuilder, Proxy};

use super::GraphClientError;
use super::names::CheckedNames;
use crate::settings::{GraphSettings, SettingsError};

/// Set the client's way to Graph. For https the proxy opens a tunnel (CONNECT) and sees neither token nor
/// text; for http the proxy receives the request, and looks the name of Graph up itself.
pub fn egress(builder: ClientBuilder, settings: &GraphSettings) -> Result<ClientBuilder, GraphClientError> {
    // reqwest uses the environment's proxies by default.
    let mut builder = builder.no_proxy();
    if let Some(authorities) = settings.authorities()? {
        let certificates = Certificate::from_pem_bundle(authorities.as_bytes())
            .map_err(|error| SettingsError::of("graph.ca_file", error))?;
        builder = builder.tls_certs_merge(certificates);
    }
    let names = settings.names_in_plaintext()?;
    if !names.is_empty() {
        builder = builder.dns_resolver(CheckedNames::new(names, settings.plaintext));
    }
    let Some(url) = settings.proxy()? else { return Ok(builder) };
    let proxy =
        Proxy::all(url).map_err(|error| GraphClientError::Transport(error.without_url().to_string()))?;
    Ok(builder.proxy(proxy))
}
