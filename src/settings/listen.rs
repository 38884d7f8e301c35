//! The address of the admin listener: a TCP address, or the path of a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The beginning of a socket's path.
const UNIX: &str = "unix:";

/// The value of `admin.listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl AdminAddress {
    /// Whether only this machine reaches the address.
    pub fn is_local(&self) -> bool {
        match self {
            AdminAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            AdminAddress::Unix(_) => true,
        }
    }

    /// Return the TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            AdminAddress::Tcp(address) => Some(*address),
            AdminAddress::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for AdminAddress {
    fn from(address: SocketAddr) -> AdminAddress {
        AdminAddress::Tcp(address)
    }
}

impl FromStr for AdminAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<AdminAddress, Self::Err> {
        match text.strip_prefix(UNIX) {
            Some("") => Err("the path of the socket is missing"),
            Some(path) => Ok(AdminAddress::Unix(Path::new(path).to_owned())),
            None => text.parse().map(AdminAddress::Tcp).map_err(|_| "not an address with a port"),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddress::Tcp(address) => address.fmt(f),
            AdminAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for AdminAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AdminAddress, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for AdminAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_or_path_is_read_and_shown_alike() {
        for (text, is_local) in [
            ("127.0.0.1:9090", true),
            ("[::1]:9090", true),
            ("[::ffff:127.0.0.1]:9090", true),
            ("unix:/run/meta-dispatch/admin.sock", true),
            ("0.0.0.0:9090", false),
            ("10.1.2.3:9090", false),
        ] {
            let address: AdminAddress = text.parse().expect("an address");
            assert_eq!((address.to_string().as_str(), address.is_local()), (text, is_local));
        }
        for wrong in ["", "unix:", "127.0.0.1", "localhost:9090", "/run/admin.sock"] {
            assert!(wrong.parse::<AdminAddress>().is_err(), "{wrong}");
        }
    }
}
