//! The way to Graph: direct, or through the proxy of `graph.proxy`; never through a proxy of the environment.

use reqwest::{ClientBuilder, Proxy};

use super::GraphClientError;
use crate::settings::GraphSettings;

/// Set the client's way to Graph. For https the proxy opens a tunnel (CONNECT) and sees neither token nor
/// text; for http the proxy receives the request.
pub fn egress(builder: ClientBuilder, settings: &GraphSettings) -> Result<ClientBuilder, GraphClientError> {
    // reqwest uses the environment's proxies by default.
    let direct = builder.no_proxy();
    let Some(url) = settings.proxy()? else { return Ok(direct) };
    let proxy =
        Proxy::all(url).map_err(|error| GraphClientError::Transport(error.without_url().to_string()))?;
    Ok(direct.proxy(proxy))
}
