//! The way to Graph: direct, or through the proxy of `graph.proxy`; never through one that the environment names.

use reqwest::{ClientBuilder, Proxy};

use super::GraphClientError;
use crate::settings::GraphSettings;

/// Tells a client the way. For https the proxy is asked for a tunnel (CONNECT), so it sees neither token nor text; for
/// http it is handed the request.
pub fn egress(builder: ClientBuilder, settings: &GraphSettings) -> Result<ClientBuilder, GraphClientError> {
    // Without this the environment's proxies would be used.
    let direct = builder.no_proxy();
    let Some(url) = settings.proxy()? else { return Ok(direct) };
    let proxy =
        Proxy::all(url).map_err(|error| GraphClientError::Transport(error.without_url().to_string()))?;
    Ok(direct.proxy(proxy))
}
