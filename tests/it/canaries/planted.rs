//! The canaries: one secret of each kind, none like another.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::secrets::Secret;

/// The name of the page token that another program has stored in clear.
pub const PLAIN_TOKEN: &str = "the plain page token";
/// The name of the messages' text.
pub const TEXT: &str = "the text of a message";

/// Random secrets. The names are those by which reports call them.
pub struct Canaries {
    /// Made by `account add`.
    pub tsid: String,
    /// One that somebody tries.
    pub wrong_tsid: String,
    pub plain_token: String,
    pub sealed_token: String,
    pub app_secret: String,
    pub key: [u8; 32],
    pub token_key: [u8; 32],
    pub app_key: [u8; 32],
    pub verify_token: String,
    pub reader: String,
    pub operator: String,
    pub wrong_admin: String,
    pub database_password: String,
    pub broker_password: String,
    pub text: String,
}

fn word() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

impl Canaries {
    pub fn mint() -> Canaries {
        Canaries {
            tsid: word(),
            wrong_tsid: word(),
            plain_token: word(),
            sealed_token: word(),
            app_secret: word(),
            key: rand::random(),
            token_key: rand::random(),
            app_key: rand::random(),
            verify_token: word(),
            reader: word(),
            operator: word(),
            wrong_admin: word(),
            database_password: word(),
            broker_password: word(),
            text: word(),
        }
    }

    /// Return `security.key` as it is set.
    pub fn key_text(&self) -> String {
        STANDARD.encode(self.key)
    }

    /// Return `security.token_key` as it is set.
    pub fn token_key_text(&self) -> String {
        STANDARD.encode(self.token_key)
    }

    /// Return `security.app_key` as it is set.
    pub fn app_key_text(&self) -> String {
        STANDARD.encode(self.app_key)
    }

    /// Return every secret, and the text of the messages as the last.
    pub fn all(&self) -> Vec<Secret> {
        vec![
            Secret::new("the API token", &self.tsid),
            Secret::new("a wrong API token", &self.wrong_tsid),
            Secret::new(PLAIN_TOKEN, &self.plain_token),
            Secret::new("the sealed page token", &self.sealed_token),
            Secret::new("graph.app_secret", &self.app_secret),
            Secret::new("security.key", self.key),
            Secret::new("the text of security.key", self.key_text()),
            Secret::new("security.token_key", self.token_key),
            Secret::new("the text of security.token_key", self.token_key_text()),
            Secret::new("security.app_key", self.app_key),
            Secret::new("the text of security.app_key", self.app_key_text()),
            Secret::new("webhooks.verify_token", &self.verify_token),
            Secret::new("the admin listener's reading token", &self.reader),
            Secret::new("the admin listener's operating token", &self.operator),
            Secret::new("a wrong token of the admin listener", &self.wrong_admin),
            Secret::new("the database's password", &self.database_password),
            Secret::new("the broker's password", &self.broker_password),
            Secret::new(TEXT, &self.text),
        ]
    }
}
