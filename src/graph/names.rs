//! The look-up of host names for HTTP clients, with the rule for plain text (`security.plaintext`) on some of them.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::settings::Plaintext;

/// Looks names up, and refuses those that would be spoken to in plain text beyond private networks: the client gets
/// no address to connect to.
pub struct CheckedNames {
    in_plaintext: Vec<String>,
    rule: Plaintext,
}

impl CheckedNames {
    /// Check these names; others lead anywhere.
    pub fn new(in_plaintext: Vec<String>, rule: Plaintext) -> CheckedNames {
        CheckedNames { in_plaintext, rule }
    }
}

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let is_checked = self.in_plaintext.iter().any(|host| host.eq_ignore_ascii_case(name.as_str()));
        let rule = if is_checked { self.rule } else { Plaintext::Anywhere };
        Box::pin(async move {
            // The client replaces port 0 by that of the URL.
            let addresses: Vec<SocketAddr> = rule.look_up(name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_only_what_is_checked() {
        // The strictest rule refuses this machine's own name.
        let names = CheckedNames::new(vec!["localhost".to_owned()], Plaintext::Never);
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let refused = names.resolve(name("LOCALHOST")).await.err().expect("it is refused");
        assert!(refused.to_string().contains("plain text is refused"), "{refused}");
        let names = CheckedNames::new(vec!["other.example".to_owned()], Plaintext::Never);
        let mut found = names.resolve(name("localhost")).await.expect("it is not checked");
        assert!(found.all(|address| address.ip().is_loopback()));
    }
}
