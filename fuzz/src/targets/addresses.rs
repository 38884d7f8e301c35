//! The client of a request behind proxies. The first line is the peer, the second the trusted networks, separated by
//! commas, and each further line an `X-Forwarded-For`.
//!
//! Properties: the client is the peer, or an address of the header; every address on the way from the peer to it belongs
//! to a trusted proxy; the client is no such proxy itself, unless no readable address stands before it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use meta_dispatch::domain::{CountedAddress, network};
use meta_dispatch::edge::ClientAddress;

use crate::shape::note;

pub const WORDS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.0/8",
    "192.0.2.7",
    "198.51.100.1",
    "198.51.100.1:443",
    "::ffff:10.0.0.1",
    "2001:db8::5",
    "[2001:db8::5]:443",
    "[2001:db8::5]",
    "2001:db8:1::/48",
    "127.0.0.1",
    "::1",
    "unknown",
    "_hidden",
    ", ",
    ",,",
    "0.0.0.0/0",
    "::/0",
    "fe80::1%eth0",
    "010.0.0.1",
    "\n",
];

pub fn target(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let text = |line: Option<&[u8]>| String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    let peer: IpAddr = text(lines.next()).trim().parse().unwrap_or(IpAddr::from([10, 0, 0, 1]));
    let proxies: Vec<IpNet> = text(lines.next()).split(',').filter_map(trusted_network).collect();
    let mut headers = HeaderMap::new();
    for line in lines.take(50) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    let client = ClientAddress::of(peer, &headers, &proxies).0;
    is_found_from_the_right(client, peer.to_canonical(), &headers, &proxies);
    counts_as_it_is_printed(client);
}

/// Read a network as `http.trusted_proxies` takes it: IPv4 is written as such.
fn trusted_network(text: &str) -> Option<IpNet> {
    network(text.trim())
}

fn is_found_from_the_right(client: IpAddr, peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) {
    let is_trusted = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    // From the far end to the peer; `None` is an entry that cannot be read.
    let mut way: Vec<Option<IpAddr>> = Vec::new();
    for line in headers.get_all("x-forwarded-for") {
        match line.to_str() {
            Ok(line) => way.extend(line.split(',').map(entry)),
            Err(_) => way.push(None),
        }
    }
    way.push(Some(peer));
    let stands_right = |place: &usize| {
        let behind = &way[place + 1..];
        let before = place.checked_sub(1).and_then(|before| way[before]);
        way[*place] == Some(client)
            && behind.iter().all(|address| address.as_ref().is_some_and(is_trusted))
            && (!is_trusted(&client) || before.is_none())
    };
    let found = (0..way.len()).rev().find(stands_right);
    assert!(found.is_some(), "{client} of {way:?} through {proxies:?}");
    note((found.map(|place| way.len() - place), client.is_ipv4(), is_trusted(&client)));
}

fn entry(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let address = address.or_else(|| bracketed()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6));
    address.map(|address| address.to_canonical())
}

/// An address counts as one; what is printed of it reads as the same.
fn counts_as_it_is_printed(address: IpAddr) {
    let counted = CountedAddress::of(address);
    assert_eq!(counted.to_string().parse(), Ok(counted));
}
