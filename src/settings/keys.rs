//! `security.key`, `security.app_key` and `security.token_key`: the keys that seal page tokens and the secrets of apps in
//! the database, and those of the hashes of API tokens. Never here: sealing and hashing; the modules `seal` and `edge` do that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::{SecuritySettings, SettingsError};

/// A key in clear, wiped when it is dropped.
type KeyBytes = Zeroizing<[u8; 32]>;

impl SecuritySettings {
    /// Return the keys, the one that seals first; empty if none is set.
    pub fn keys(&self) -> Result<Vec<KeyBytes>, SettingsError> {
        keys("security.key", &self.key)
    }

    /// Return the keys for the secrets of Meta's apps, the one that seals first; empty if none is set.
    pub fn app_keys(&self) -> Result<Vec<KeyBytes>, SettingsError> {
        keys("security.app_key", &self.app_key)
    }

    /// Return the keys of tokens' hashes, the one for new tokens first; empty if none is set.
    pub fn token_keys(&self) -> Result<Vec<KeyBytes>, SettingsError> {
        keys("security.token_key", &self.token_key)
    }
}

fn keys(setting: &str, given: &SecretString) -> Result<Vec<KeyBytes>, SettingsError> {
    let is_between = |character: char| character == ',' || character.is_whitespace();
    let texts = given.expose_secret().split(is_between).filter(|text| !text.is_empty());
    texts.map(decoded).collect::<Option<_>>().ok_or_else(|| {
        let demand = "must be 32 bytes in base64, as `meta-dispatch key generate` prints them, or several such keys, \
                      separated by commas or white space";
        SettingsError::of(setting, demand)
    })
}

fn decoded(text: &str) -> Option<KeyBytes> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new)
}
