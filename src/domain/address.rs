//! Addresses of callers as they are counted, and the notation of networks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// Bits of an IPv6 address that name the network of one customer.
const IPV6_NETWORK: u8 = 64;

/// An address as it is counted: an IPv4 address, or an IPv6 network of /64, as one customer has all its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CountedAddress(IpAddr);

impl CountedAddress {
    pub fn of(address: IpAddr) -> CountedAddress {
        CountedAddress(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << (128 - u32::from(IPV6_NETWORK)));
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address => address,
        })
    }
}

impl fmt::Display for CountedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => f.pad(&format!("{network}/{IPV6_NETWORK}")),
        }
    }
}

/// The text is neither an address nor the network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no address, and no IPv6 network of /64")]
pub struct NoAddress;

impl FromStr for CountedAddress {
    type Err = NoAddress;

    /// Read an address, or its printed form.
    fn from_str(text: &str) -> Result<CountedAddress, NoAddress> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(CountedAddress::of(address));
        }
        match text.parse::<IpNet>() {
            Ok(IpNet::V6(network)) if network.prefix_len() == IPV6_NETWORK => {
                Ok(CountedAddress::of(IpAddr::V6(network.addr())))
            }
            Ok(IpNet::V4(network)) if network.prefix_len() == 32 => {
                Ok(CountedAddress::of(IpAddr::V4(network.addr())))
            }
            _ => Err(NoAddress),
        }
    }
}

impl Serialize for CountedAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Read a network, or a single address. IPv4 is written as such: addresses are compared in their canonical form.
pub fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address.to_canonical()));
    }
    let network = text.parse::<IpNet>().ok()?.trunc();
    (network.addr() == network.addr().to_canonical()).then_some(network)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::ipv4("203.0.113.9", "203.0.113.9")]
    #[case::mapped("::ffff:203.0.113.9", "203.0.113.9")]
    #[case::single_network("203.0.113.9/32", "203.0.113.9")]
    #[case::ipv6("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64")]
    #[case::ipv6_network("2001:db8:1:2::/64", "2001:db8:1:2::/64")]
    #[case::loopback("::1", "::/64")]
    fn ipv6_counts_by_network(#[case] given: &str, #[case] counted: &str) {
        let address: CountedAddress = given.parse().expect("an address");
        assert_eq!(address.to_string(), counted);
        assert_eq!(counted.parse(), Ok(address), "it is read as it is printed");
    }

    #[rstest]
    #[case("")]
    #[case("example.org")]
    #[case("203.0.113.0/24")]
    #[case("2001:db8::/48")]
    fn other_texts_are_no_address(#[case] text: &str) {
        assert_eq!(text.parse::<CountedAddress>(), Err(NoAddress));
    }

    #[rstest]
    #[case("203.0.113.7", Some("203.0.113.7/32"))]
    #[case("203.0.113.7/24", Some("203.0.113.0/24"))]
    #[case("2001:db8::1", Some("2001:db8::1/128"))]
    #[case("2001:db8::/32", Some("2001:db8::/32"))]
    #[case("::ffff:203.0.113.7", Some("203.0.113.7/32"))]
    #[case("::ffff:203.0.113.0/120", None)]
    #[case("203.0.113.0/33", None)]
    #[case("shop", None)]
    fn network_has_its_usual_notation(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(network(text).map(|network| network.to_string()).as_deref(), expected);
    }
}
