//! The address of a request's client: the peer of the connection or, behind a trusted proxy, the client that the
//! proxy names.
//!
//! `X-Forwarded-For` is read from the right, where the last proxy wrote: entries further to the left may be an
//! invention of the client. Never here: the consequence of an address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of a request's client, in its canonical form: an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// Return the client of a request that came from `peer`. Behind trusted proxies it is the last address that
    /// is none of theirs; an entry that cannot be read ends the way back to it.
    pub fn of(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> ClientAddress {
        let mut address = peer.to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut entries = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        while is_among(address, proxies)
            && let Some(before) = entries.next().and_then(read)
        {
            address = before;
        }
        ClientAddress(address)
    }

    /// Whether a proxy that is not trusted passed the request on, and this is the proxy's address: `X-Forwarded-For` names
    /// other addresses alone.
    pub fn is_of_unknown_proxy(self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(FORWARDED_FOR).iter();
        let mut entries = lines.flat_map(|line| line.to_str().unwrap_or_default().split(',')).peekable();
        entries.peek().is_some() && !entries.any(|entry| read(entry) == Some(self.0))
    }
}

/// Whether an address in its canonical form belongs to one of the networks.
pub fn is_among(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Read an entry: an address, with or without a port, an IPv6 address also in brackets.
fn read(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address = entry.parse::<IpAddr>().ok().or_else(with_port).or_else(in_brackets)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    const PROXIES: [&str; 3] = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8:1::/48"];

    fn client(peer: &str, lines: &[&str]) -> String {
        client_and_headers(peer, lines).0.0.to_string()
    }

    fn client_and_headers(peer: &str, lines: &[&str]) -> (ClientAddress, HeaderMap) {
        let proxies = PROXIES.map(|network| network.parse::<IpNet>().expect("a network"));
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
        }
        (ClientAddress::of(peer.parse().expect("an address"), &headers, &proxies), headers)
    }

    #[rstest]
    #[case::no_header("203.0.113.9", &[], false)]
    #[case::untrusted_proxy("203.0.113.9", &["198.51.100.1"], true)]
    #[case::own_address("203.0.113.9", &["203.0.113.9"], false)]
    #[case::trusted_proxy("10.0.0.1", &["127.0.0.1, 198.51.100.1"], false)]
    #[case::untrusted_before_a_trusted_one("10.0.0.1", &["198.51.100.1, 203.0.113.9:4711"], false)]
    fn unknown_proxy_is_not_named_by_itself(
        #[case] peer: &str,
        #[case] lines: &[&str],
        #[case] expected: bool,
    ) {
        let (client, headers) = client_and_headers(peer, lines);
        assert_eq!(client.is_of_unknown_proxy(&headers), expected);
    }

    #[rstest]
    #[case::untrusted_peer("203.0.113.9", &["198.51.100.1"], "203.0.113.9")]
    #[case::no_header("10.0.0.1", &[], "10.0.0.1")]
    #[case::one_proxy("10.0.0.1", &["198.51.100.1"], "198.51.100.1")]
    #[case::invented_entries("10.0.0.1", &["127.0.0.1, 10.0.0.9, 198.51.100.1"], "198.51.100.1")]
    #[case::chain_of_proxies("10.0.0.1", &["198.51.100.1, 192.0.2.7,10.2.3.4"], "198.51.100.1")]
    #[case::several_lines("10.0.0.1", &["127.0.0.1", "198.51.100.1, 10.9.9.9", "192.0.2.7"], "198.51.100.1")]
    #[case::proxies_alone("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3")]
    #[case::port("10.0.0.1", &["198.51.100.1:55123"], "198.51.100.1")]
    #[case::ipv6("10.0.0.1", &["2001:db8::5"], "2001:db8::5")]
    #[case::ipv6_in_brackets("10.0.0.1", &["[2001:db8::5]"], "2001:db8::5")]
    #[case::ipv6_with_port("10.0.0.1", &["[2001:db8::5]:443"], "2001:db8::5")]
    #[case::ipv6_proxy("2001:db8:1::7", &["198.51.100.1"], "198.51.100.1")]
    #[case::mapped_peer("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1")]
    #[case::mapped_untrusted_peer("::ffff:203.0.113.9", &["198.51.100.1"], "203.0.113.9")]
    #[case::unreadable_last("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1")]
    #[case::unreadable_before_a_proxy("10.0.0.1", &["198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2")]
    #[case::empty_line("10.0.0.1", &[""], "10.0.0.1")]
    #[case::empty_entry("10.0.0.1", &["198.51.100.1, , 10.0.0.2"], "10.0.0.2")]
    #[case::no_ascii("10.0.0.1", &["198.51.100.1, 10.0.0.2é"], "10.0.0.1")]
    #[case::ipv4_in_brackets("10.0.0.1", &["[198.51.100.1]"], "10.0.0.1")]
    fn client_is_the_last_address_that_is_no_proxy(
        #[case] peer: &str,
        #[case] lines: &[&str],
        #[case] expected: &str,
    ) {
        assert_eq!(client(peer, lines), expected);
    }
}
