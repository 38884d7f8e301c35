//! The recipients named before in a batch, in bounded memory: hashes of recipients.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// How many recipients are remembered, in some 40 MB; further ones are not recognised again.
pub const MAX_RECIPIENTS: usize = 3_600_000;

/// The recipients that a batch has named.
#[derive(Default)]
pub struct Recipients {
    hasher: RandomState,
    seen: HashSet<u64>,
}

/// A recipient of a campaign and a line: the same id means different people on different pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient(u64);

impl Recipients {
    pub fn recipient(&self, campaign: &str, line: &str, dest: &str) -> Recipient {
        Recipient(self.hasher.hash_one((campaign, line, dest)))
    }

    pub fn is_known(&self, recipient: Recipient) -> bool {
        self.seen.contains(&recipient.0)
    }

    /// Remember a recipient. Return whether the recipient was known.
    pub fn remember(&mut self, recipient: Recipient) -> bool {
        if self.seen.len() >= MAX_RECIPIENTS {
            return self.is_known(recipient);
        }
        !self.seen.insert(recipient.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipient_is_known_again_within_campaign_and_line() {
        let mut recipients = Recipients::default();
        let ann = recipients.recipient("spring", "1", "253");
        assert!(!recipients.is_known(ann));
        assert!(!recipients.remember(ann));
        assert!(recipients.remember(ann) && recipients.is_known(ann));
        for (campaign, line, dest) in [("", "1", "253"), ("spring", "2", "253"), ("spring", "1", "254")] {
            let other = recipients.recipient(campaign, line, dest);
            assert!(!recipients.is_known(other), "{campaign} {line} {dest}");
        }
    }
}
