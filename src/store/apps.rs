//! Meta's apps, and the lines that belong to them or send for a page.
//!
//! Never here: keys, sealing and opening.

use async_trait::async_trait;
use secrecy::SecretString;
use time::OffsetDateTime;

use super::StoreError;
use crate::channel::Class;
use crate::domain::LineId;

/// One of Meta's apps.
#[derive(Debug, Clone)]
pub struct AppRecord {
    /// Meta's id of the app.
    pub id: String,
    pub name: Option<String>,
    /// The secret, plain or sealed, as stored.
    pub secret: Option<SecretString>,
    /// The token of the webhook's verification, plain or sealed, as stored.
    pub verify_token: Option<SecretString>,
    pub created_at: OffsetDateTime,
}

/// An app to be added, with its secrets as they are to be stored.
#[derive(Debug, Clone)]
pub struct NewApp {
    pub id: String,
    pub name: Option<String>,
    pub secret: SecretString,
    pub verify_token: SecretString,
}

/// The two secrets of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppField {
    Secret,
    VerifyToken,
}

/// The statements about Meta's apps.
#[async_trait]
pub trait AppStore: Send + Sync {
    /// Return all apps, by id.
    async fn apps(&self) -> Result<Vec<AppRecord>, StoreError>;

    /// Add an app, or replace its secrets; a name is kept where the new one is missing. Return whether the app is new.
    async fn put_app(&self, app: &NewApp) -> Result<bool, StoreError>;

    /// Remove an app; return whether it existed. `Invalid` if lines belong to it.
    async fn remove_app(&self, app: &str) -> Result<bool, StoreError>;

    /// Replace the text of a secret that is still `old`; return whether it was.
    async fn swap_app_secret(
        &self,
        app: &str,
        field: AppField,
        old: &SecretString,
        new: &SecretString,
    ) -> Result<bool, StoreError>;

    /// Make a line belong to an app; with `None` to that of the settings. Return whether the line exists; `Invalid` if
    /// the app does not.
    async fn set_line_app(&self, line: LineId, app: Option<&str>) -> Result<bool, StoreError>;

    /// Return the lines of a class that send for these pages: Facebook Pages of Messenger lines, Instagram accounts of
    /// Instagram lines. A page may have several lines.
    async fn lines_of_pages(
        &self,
        class: Class,
        pages: &[String],
    ) -> Result<Vec<(String, LineId)>, StoreError>;
}
