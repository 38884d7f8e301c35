//! The verification of the webhook: Meta asks with the verify token that an operator has set in the dashboard, and
//! expects its challenge back. Never here: HTTP.

use ring::digest;
use secrecy::ExposeSecret;
use subtle::{Choice, ConstantTimeEq};

use super::apps::AppSecrets;

/// Far above the length of Meta's challenges.
const LONGEST_CHALLENGE: usize = 1_024;

/// A verification as a query asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    token: String,
    pub challenge: String,
}

impl Verification {
    /// Read a query; `None` for one that is no verification.
    pub fn of(query: &str) -> Option<Verification> {
        let value = |wanted: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        if value("hub.mode")? != "subscribe" {
            return None;
        }
        let challenge = value("hub.challenge").filter(|challenge| challenge.len() <= LONGEST_CHALLENGE)?;
        Some(Verification { token: value("hub.verify_token")?, challenge })
    }

    /// Whether one of the apps has the token. The time of the comparison tells nothing about the tokens, nor which one fits.
    pub fn is_of_one(&self, secrets: &[AppSecrets]) -> bool {
        let given = digest::digest(&digest::SHA256, self.token.as_bytes());
        let tokens = secrets.iter().filter_map(|secrets| secrets.verify_token.as_ref());
        let found = tokens.fold(Choice::from(0), |found, token| {
            let known = digest::digest(&digest::SHA256, token.expose_secret().as_bytes());
            found | known.as_ref().ct_eq(given.as_ref())
        });
        found.into()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn app(verify_token: Option<&str>) -> AppSecrets {
        AppSecrets { id: None, signs: None, verify_token: verify_token.map(Into::into) }
    }

    #[test]
    fn token_of_any_app_verifies() {
        let apps = [app(None), app(Some("first")), app(Some("second"))];
        let asked = |token: &str| {
            let query = format!("hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1158201444");
            Verification::of(&query).expect("a verification")
        };
        assert!(asked("second").is_of_one(&apps) && asked("first").is_of_one(&apps));
        for wrong in ["", "third", "firs", "first2"] {
            assert!(!asked(wrong).is_of_one(&apps), "{wrong}");
        }
        assert_eq!(asked("first").challenge, "1158201444");
    }

    #[rstest]
    #[case::empty("")]
    #[case::another_mode("hub.mode=unsubscribe&hub.verify_token=a&hub.challenge=1")]
    #[case::no_token("hub.mode=subscribe&hub.challenge=1")]
    #[case::no_challenge("hub.mode=subscribe&hub.verify_token=a")]
    fn other_queries_are_no_verification(#[case] query: &str) {
        assert_eq!(Verification::of(query), None);
    }

    #[test]
    fn long_challenge_is_refused() {
        let challenge = "1".repeat(LONGEST_CHALLENGE + 1);
        let query = format!("hub.mode=subscribe&hub.verify_token=a&hub.challenge={challenge}");
        assert_eq!(Verification::of(&query), None);
    }
}
