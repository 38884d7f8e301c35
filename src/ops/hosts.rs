//! The names under which the admin listener is reached. A page of another site that binds its own name to this
//! machine's address (DNS rebinding) sends that name as `Host`, and is answered 421.
//!
//! An address cannot be bound to another machine, so a listener on every address takes any address. Pure.

use std::net::IpAddr;

use crate::settings::AdminAddress;

/// The setting's word for any name.
const ANY: &str = "*";

/// The allowed hosts.
#[derive(Debug, Clone)]
pub struct Hosts {
    listen: Option<IpAddr>,
    /// In lower case.
    named: Vec<String>,
}

impl Hosts {
    /// Allow the names of loopback, the listening address and these names.
    pub fn new(listen: &AdminAddress, named: Vec<String>) -> Hosts {
        Hosts { listen: listen.tcp().map(|address| address.ip().to_canonical()), named }
    }

    /// Whether the value of a `Host` header, or the authority of a URI, is allowed.
    pub fn allow(&self, authority: &str) -> bool {
        let Some(host) = without_port(authority) else { return false };
        if self.named.iter().any(|named| named == ANY || *named == host) {
            return true;
        }
        match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) => {
                let is_listening = |listen: IpAddr| listen == address || listen.is_unspecified();
                address.is_loopback() || self.listen.is_some_and(is_listening)
            }
            Err(_) => host == "localhost",
        }
    }
}

/// Return the host of an authority in lower case: without its port, the brackets of an IPv6 address and the
/// dot that ends a name. `None` if it is no host.
fn without_port(authority: &str) -> Option<String> {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address, if port.is_empty() { port } else { port.strip_prefix(':')? })
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    (is_port(port) && !host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn hosts(listen: &str, named: &[&str]) -> Hosts {
        let named = named.iter().map(|host| (*host).to_owned()).collect();
        Hosts::new(&listen.parse().expect("an address"), named)
    }

    #[rstest]
    #[case("localhost", true)]
    #[case("LOCALHOST:9090", true)]
    #[case("localhost.:9090", true)]
    #[case("127.0.0.1:9090", true)]
    #[case("127.8.9.1", true)]
    #[case("[::1]:9090", true)]
    #[case("[::ffff:127.0.0.1]:9090", true)]
    #[case("10.1.2.3:9090", true)]
    #[case("10.1.2.4:9090", false)]
    #[case("ops.example:443", true)]
    #[case("evil.example:9090", false)]
    #[case("localhost.evil.example", false)]
    #[case("evil.example@localhost", false)]
    #[case("localhost:evil", false)]
    #[case("[::1]evil.example", false)]
    #[case("[::1", false)]
    #[case("", false)]
    #[case(":9090", false)]
    fn only_own_names_are_allowed(#[case] authority: &str, #[case] expected: bool) {
        assert_eq!(hosts("10.1.2.3:9090", &["ops.example"]).allow(authority), expected);
    }

    #[test]
    fn listener_on_every_address_takes_addresses_and_no_names() {
        for listen in ["0.0.0.0:9090", "[::]:9090"] {
            let hosts = hosts(listen, &[]);
            assert!(hosts.allow("10.1.2.3:9090") && hosts.allow("[2001:db8::1]:9090"), "{listen}");
            assert!(!hosts.allow("evil.example:9090"), "{listen}");
        }
    }

    #[test]
    fn socket_takes_names_of_loopback() {
        let hosts = hosts("unix:/run/admin.sock", &[]);
        assert!(hosts.allow("localhost") && !hosts.allow("10.1.2.3") && !hosts.allow("evil.example"));
    }

    #[test]
    fn star_takes_any_host() {
        assert!(hosts("127.0.0.1:9090", &["*"]).allow("evil.example:1"));
    }
}
