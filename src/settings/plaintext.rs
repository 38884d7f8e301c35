//! The rule for plain text (`security.plaintext`): which peers may be spoken to without TLS.
//!
//! An address decides at once, when the settings are read. A name decides by the addresses that it leads to, and
//! proves nothing by itself: `db.internal` may lead anywhere. Each connection looks the name up and uses an address
//! that was checked; the start of a process looks names up once, so that a wrong setting stops it there. Never here:
//! connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{GraphSettings, Settings, SettingsError};

/// How long the start waits for the addresses of a name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Where peers may be spoken to in plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Plaintext {
    Never,
    /// On loopback and private networks, and over Unix sockets.
    #[default]
    Private,
    Anywhere,
}

/// The reason why a peer is not spoken to in plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaintextRefused {
    #[error("plain text is refused, as security.plaintext is never; use TLS")]
    Never,
    #[error(
        "plain text to {0} is refused, as it is on no private network; use TLS, or set security.plaintext to anywhere"
    )]
    Public(IpAddr),
}

impl Plaintext {
    /// Refuse an address.
    pub fn check_address(self, address: IpAddr) -> Result<(), PlaintextRefused> {
        match self {
            Plaintext::Anywhere => Ok(()),
            Plaintext::Private if is_private(address) => Ok(()),
            Plaintext::Private => Err(PlaintextRefused::Public(address)),
            Plaintext::Never => Err(PlaintextRefused::Never),
        }
    }

    /// Refuse a host as far as its text tells: a name is refused by `never` alone, and else decides when it is
    /// looked up.
    pub fn check_host(self, host: &str) -> Result<(), PlaintextRefused> {
        match (address(host), self) {
            (Some(address), _) => self.check_address(address),
            (None, Plaintext::Never) => Err(PlaintextRefused::Never),
            (None, _) => Ok(()),
        }
    }

    /// Whether the rule has to know the addresses of a host.
    pub fn needs_addresses(self, host: &str) -> bool {
        self == Plaintext::Private && address(host).is_none()
    }

    /// Return the addresses of a host; an error if one of them is refused.
    pub async fn look_up(self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses: Vec<_> = tokio::net::lookup_host((bare(host), port)).await?.collect();
        for address in &addresses {
            self.check_address(address.ip()).map_err(io::Error::other)?;
        }
        Ok(addresses)
    }
}

/// Whether packets to an address stay on this machine or on a private network.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            // A connection to 0.0.0.0 is one to this machine.
            address.is_loopback()
                || address.is_unspecified()
                || address.is_private()
                || address.is_link_local()
                || is_shared(address)
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

/// Whether an address is in 100.64.0.0/10, which carriers and overlay networks use.
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0b1100_0000 == 64
}

/// Return the address that a host is, if it is no name.
fn address(host: &str) -> Option<IpAddr> {
    bare(host).parse().ok()
}

/// Return an IPv6 address without the brackets of a URL.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A setting whose peer is spoken to in plain text.
struct PlainPeer {
    key: &'static str,
    host: String,
    port: u16,
    remedy: &'static str,
}

impl PlainPeer {
    fn refused(&self, reason: impl std::fmt::Display) -> SettingsError {
        SettingsError::of(self.key, format_args!("{reason} ({})", self.remedy))
    }
}

impl GraphSettings {
    /// Return the settings whose URLs are http.
    fn plain_peers(&self) -> Result<Vec<PlainPeer>, SettingsError> {
        let urls = [
            ("graph.base_url", Some(self.base_url.clone())),
            ("graph.instagram_base_url", Some(self.instagram_base_url.clone())),
            ("graph.proxy", self.proxy()?),
        ];
        let plain = urls.into_iter().filter_map(|(key, url)| {
            let url = url.filter(|url| url.scheme() == "http")?;
            let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default().unwrap_or(80));
            Some(PlainPeer { key, host, port, remedy: "write https://" })
        });
        Ok(plain.collect())
    }

    /// Return the names that are spoken to in plain text only where they lead to private networks.
    pub fn names_in_plaintext(&self) -> Result<Vec<String>, SettingsError> {
        let peers = self.plain_peers()?.into_iter();
        Ok(peers.map(|peer| peer.host).filter(|host| self.plaintext.needs_addresses(host)).collect())
    }
}

impl Settings {
    /// Copy the rule into the sections of the peers.
    pub(super) fn copy_plaintext(&mut self) {
        let rule = self.security.plaintext;
        self.database.plaintext = rule;
        self.broker.plaintext = rule;
        self.graph.plaintext = rule;
    }

    /// Refuse peers in plain text, as far as their hosts tell. The database is not among them: parts of its
    /// connection come from the environment (`PGSSLMODE`), and the store checks it.
    pub(super) fn check_plaintext(&self) -> Result<(), SettingsError> {
        for peer in self.plain_peers()? {
            self.security.plaintext.check_host(&peer.host).map_err(|reason| peer.refused(reason))?;
        }
        Ok(())
    }

    /// Look the names of peers in plain text up, and refuse one that leads beyond private networks. A name that
    /// cannot be looked up now passes: each connection looks it up again.
    pub async fn check_names(&self) -> Result<(), SettingsError> {
        let rule = self.security.plaintext;
        for peer in self.plain_peers()? {
            if !rule.needs_addresses(&peer.host) {
                continue;
            }
            match tokio::time::timeout(LOOKUP_TIMEOUT, rule.look_up(&peer.host, peer.port)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.get_ref().is_some_and(|cause| cause.is::<PlaintextRefused>()) => {
                    return Err(peer.refused(error));
                }
                Ok(Err(error)) => {
                    tracing::warn!(key = peer.key, %error, "host name cannot be looked up: each connection tries again");
                }
                Err(_) => {
                    tracing::warn!(
                        key = peer.key,
                        "host name look-up takes long: each connection tries again"
                    );
                }
            }
        }
        Ok(())
    }

    fn plain_peers(&self) -> Result<Vec<PlainPeer>, SettingsError> {
        let mut peers = self.graph.plain_peers()?;
        let broker = Url::parse(self.broker.url.expose_secret()).ok().filter(|url| url.scheme() == "amqp");
        if let Some(url) = broker {
            let host = url.host_str().unwrap_or_default().to_owned();
            let (key, port) = ("broker.url", url.port().unwrap_or(5672));
            peers.push(PlainPeer { key, host, port, remedy: "write amqps://" });
        }
        Ok(peers)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::Overrides;
    use super::*;

    #[rstest]
    #[case::loopback("127.0.0.1", true)]
    #[case::all_of_loopback("127.255.3.4", true)]
    #[case::loopback_in_ipv6("[::1]", true)]
    #[case::loopback_mapped("::ffff:127.0.0.1", true)]
    #[case::this_machine("0.0.0.0", true)]
    #[case::ten("10.255.0.1", true)]
    #[case::last_of_172("172.31.255.255", true)]
    #[case::beyond_172("172.32.0.1", false)]
    #[case::home("192.168.1.1", true)]
    #[case::link("169.254.169.254", true)]
    #[case::shared("100.127.255.255", true)]
    #[case::beyond_shared("100.128.0.1", false)]
    #[case::before_shared("100.63.255.255", false)]
    #[case::unique_local("fd00::1", true)]
    #[case::link_in_ipv6("fe80::1", true)]
    #[case::public("203.0.113.9", false)]
    #[case::public_mapped("::ffff:203.0.113.9", false)]
    #[case::public_in_ipv6("[2001:db8::1]", false)]
    fn private_rule_knows_networks(#[case] host: &str, #[case] is_allowed: bool) {
        assert_eq!(Plaintext::Private.check_host(host).is_ok(), is_allowed);
        assert!(Plaintext::Anywhere.check_host(host).is_ok());
        assert_eq!(Plaintext::Never.check_host(host), Err(PlaintextRefused::Never));
        assert!(!Plaintext::Private.needs_addresses(host));
    }

    #[test]
    fn names_decide_by_their_addresses() {
        for name in ["localhost", "db", "db.internal", "db.local", "mq.svc.cluster.local", "db.example.com"] {
            assert!(Plaintext::Private.needs_addresses(name), "{name}");
            assert!(!Plaintext::Anywhere.needs_addresses(name), "{name}");
            assert_eq!(Plaintext::Never.check_host(name), Err(PlaintextRefused::Never));
        }
    }

    #[tokio::test]
    async fn looked_up_addresses_are_checked() {
        let found = Plaintext::Private.look_up("localhost", 5672).await.expect("it is this machine");
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 5672));
        let refused = Plaintext::Private.look_up("203.0.113.9", 5672).await.expect_err("it is public");
        assert!(refused.to_string().starts_with("plain text to 203.0.113.9 is refused"), "{refused}");
        let refused = Plaintext::Never.look_up("localhost", 5672).await.expect_err("nothing is plain");
        assert!(refused.to_string().contains("security.plaintext is never"), "{refused}");
    }

    #[rstest]
    #[case::a_public_broker("private", "broker.url", "amqp://guest:guest@203.0.113.9", false)]
    #[case::a_public_broker_with_tls("private", "broker.url", "amqps://guest:guest@203.0.113.9", true)]
    #[case::a_private_broker("private", "broker.url", "amqp://guest:guest@10.0.0.9:5672/%2f", true)]
    #[case::a_broker_by_name("private", "broker.url", "amqp://guest:guest@mq.example", true)]
    #[case::any_broker("anywhere", "broker.url", "amqp://guest:guest@203.0.113.9", true)]
    #[case::no_broker("never", "broker.url", "amqp://guest:guest@127.0.0.1", false)]
    #[case::no_broker_by_name("never", "broker.url", "amqp://guest:guest@localhost", false)]
    #[case::the_embedded_broker("never", "broker.url", "embedded", true)]
    #[case::a_public_graph("private", "graph.base_url", "http://203.0.113.9/v25.0", false)]
    #[case::a_public_graph_in_ipv6("private", "graph.base_url", "http://[2001:db8::1]:8090/v25.0", false)]
    #[case::a_graph_of_this_machine("private", "graph.base_url", "http://127.0.0.1:8090/v25.0", true)]
    #[case::another_writing("private", "graph.base_url", "http://0x7f.1:8090/v25.0", true)]
    #[case::another_writing_of_a_public_one("private", "graph.base_url", "http://3405803785/v25.0", false)]
    #[case::no_graph("never", "graph.base_url", "http://127.0.0.1:8090/v25.0", false)]
    #[case::meta("never", "graph.base_url", "https://graph.facebook.com/v25.0", true)]
    #[case::a_public_instagram("private", "graph.instagram_base_url", "http://203.0.113.9/v25.0", false)]
    #[case::an_instagram_of_this_machine(
        "private",
        "graph.instagram_base_url",
        "http://127.0.0.1:8090/v25.0",
        true
    )]
    #[case::a_public_proxy("private", "graph.proxy", "http://203.0.113.9:3128", false)]
    #[case::a_public_proxy_with_tls("private", "graph.proxy", "https://203.0.113.9:3128", true)]
    #[case::a_private_proxy("private", "graph.proxy", "http://192.168.7.7:3128", true)]
    #[case::no_proxy("never", "graph.proxy", "http://192.168.7.7:3128", false)]
    fn settings_follow_the_rule(
        #[case] rule: &str,
        #[case] key: &str,
        #[case] value: &str,
        #[case] is_taken: bool,
    ) {
        let given: Overrides =
            vec![("security.plaintext".to_owned(), rule.to_owned()), (key.to_owned(), value.to_owned())];
        match Settings::load_from(None, [], given) {
            Ok(_) => assert!(is_taken, "{value}"),
            Err(error) => {
                assert!(!is_taken, "{error}");
                assert!(error.to_string().starts_with(&format!("setting {key}: plain text")), "{error}");
                assert!(!error.to_string().contains("guest"), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn unknown_name_does_not_stop_the_start() {
        let given = vec![("broker.url".to_owned(), "amqp://guest:guest@mq.invalid".to_owned())];
        let settings = Settings::load_from(None, [], given).expect("a name is taken");
        settings.check_names().await.expect("each connection looks it up again");
        let given = vec![("graph.base_url".to_owned(), "http://localhost:8090/v25.0".to_owned())];
        let settings = Settings::load_from(None, [], given).expect("a name is taken");
        settings.check_names().await.expect("it leads to this machine");
        assert_eq!(settings.graph.names_in_plaintext().expect("the URLs are right"), ["localhost"]);
    }
}
