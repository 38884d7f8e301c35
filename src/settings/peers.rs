//! The peers that settings name, in the form that the program uses: the database, proxies and hosts.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use secrecy::ExposeSecret;

use super::{AdminSettings, DatabaseSettings, GraphSettings, HttpSettings, SettingsError, redact};

impl DatabaseSettings {
    /// Return the name of the database for commands: the URL without passwords, a file by its path from the
    /// root.
    pub fn name(&self) -> String {
        let url = self.url.expose_secret();
        let Some(path) = url.strip_prefix("sqlite:") else { return redact::without_passwords(url) };
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        format!("sqlite:{}", whole.display())
    }
}

impl GraphSettings {
    /// Return `graph.proxy` as a URL, if one is set.
    pub fn proxy(&self) -> Result<Option<url::Url>, SettingsError> {
        let text = self.proxy.expose_secret();
        if text.is_empty() {
            return Ok(None);
        }
        let is_origin = |url: &url::Url| {
            url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.has_host()
        };
        // The parser also reads `http:user:password@host`, whose password would not be recognised where
        // settings are shown.
        let has_scheme = ["http://", "https://"]
            .iter()
            .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        text.parse().ok().filter(|url: &url::Url| has_scheme && is_origin(url)).map(Some).ok_or_else(|| {
            let demand =
                "must be http://host:port, with user:password@ before the host if need be, or https://…";
            SettingsError::of("graph.proxy", demand)
        })
    }
}

impl HttpSettings {
    /// Return `http.trusted_proxies` as networks.
    pub fn proxies(&self) -> Result<Vec<IpNet>, SettingsError> {
        let demand = "must be addresses or networks such as 10.0.0.0/8, separated by commas; write an IPv4 network \
                      as such, not as ::ffff:…";
        let network = |entry: &str| match entry.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address.to_canonical())),
            // The addresses of peers are compared in their canonical form.
            Err(_) => entry
                .parse::<IpNet>()
                .ok()
                .filter(|network| network.addr().is_ipv4() == network.addr().to_canonical().is_ipv4()),
        };
        let entries = self.trusted_proxies.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| network(entry).ok_or_else(|| SettingsError::of("http.trusted_proxies", demand)))
            .collect()
    }
}

impl AdminSettings {
    /// Return `admin.hosts` in lower case.
    pub fn hosts(&self) -> Result<Vec<String>, SettingsError> {
        let is_host = |host: &str| {
            host == "*"
                || host.parse::<IpAddr>().is_ok()
                || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        let demand = "must be host names or addresses without a port, separated by commas, or *";
        self.hosts
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
            .map(|host| match is_host(host) {
                true => Ok(host.to_ascii_lowercase()),
                false => Err(SettingsError::of("admin.hosts", demand)),
            })
            .collect()
    }
}
