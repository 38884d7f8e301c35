//! Echoes: which of them are about messages of this program, and what is noted of them. A worker settles the rows
//! (`dispatch::tasks::echoes`).
//!
//! Messenger returns the metadata of a message, which names its row. Instagram is not documented to: with
//! `webhooks.match_instagram_echoes` its echoes are noted with recipient, text and time. Never here: the reading of
//! Meta's JSON.

use secrecy::ExposeSecret;
use time::OffsetDateTime;

use crate::channel::Class;
use crate::domain::{Metadata, MetadataKey, RowId};
use crate::settings::Settings;
use crate::store::{EchoStore, NamedEcho, StoreError, UnnamedEcho, text_digest};

/// An echo, as an event tells it.
#[derive(Debug, Clone, Copy)]
pub struct HeardEcho<'a> {
    pub class: Class,
    /// The Page or Instagram account that sent the message.
    pub account: &'a str,
    pub dest: &'a str,
    /// Graph's id of the message.
    pub mid: &'a str,
    pub metadata: Option<&'a str>,
    pub text: Option<&'a str>,
    /// Milliseconds since 1970, by Meta's clock.
    pub at_ms: i64,
}

/// Reads echoes. Holds the key of metadata, and whether echoes without metadata count.
#[derive(Debug, Clone)]
pub struct EchoReader {
    key: Option<MetadataKey>,
    matches_instagram: bool,
}

impl EchoReader {
    pub fn of(settings: &Settings) -> EchoReader {
        let verify_token = settings.webhooks.verify_token.expose_secret();
        let app_secret = settings.graph.app_secret.expose_secret();
        EchoReader {
            key: MetadataKey::derive(verify_token, app_secret),
            matches_instagram: settings.webhooks.match_instagram_echoes,
        }
    }

    /// Return the row and the attempt that metadata names; `None` for metadata of others.
    pub fn read(&self, metadata: &str) -> Option<(RowId, i32)> {
        Metadata::read(self.key.as_ref()?, metadata)
    }

    fn named(&self, echo: &HeardEcho<'_>) -> Option<NamedEcho> {
        let (row, fence) = self.read(echo.metadata?)?;
        (echo.class == Class::MESSENGER).then(|| NamedEcho {
            row,
            fence,
            page_id: echo.account.to_owned(),
            dest: echo.dest.to_owned(),
            message_id: echo.mid.to_owned(),
        })
    }

    fn unnamed(&self, echo: &HeardEcho<'_>) -> Option<UnnamedEcho> {
        if !self.matches_instagram || echo.class != Class::INSTAGRAM || echo.metadata.is_some() {
            return None;
        }
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(echo.at_ms) * 1_000_000).ok()?;
        Some(UnnamedEcho {
            instagram_account_id: echo.account.to_owned(),
            dest: echo.dest.to_owned(),
            message_id: echo.mid.to_owned(),
            text: text_digest(echo.text?),
            at,
        })
    }
}

/// Note the echoes that may settle a row. Repeated and late ones change nothing.
pub async fn note_echoes<S>(
    store: &S,
    reader: &EchoReader,
    echoes: &[HeardEcho<'_>],
) -> Result<(), StoreError>
where
    S: EchoStore + ?Sized,
{
    // Without these ids an echo says nothing about a row.
    let whole = || echoes.iter().filter(|echo| ![echo.mid, echo.dest, echo.account].contains(&""));
    let named: Vec<NamedEcho> = whole().filter_map(|echo| reader.named(echo)).collect();
    let unnamed: Vec<UnnamedEcho> = whole().filter_map(|echo| reader.unnamed(echo)).collect();
    if !named.is_empty() {
        store.note_echoes(&named).await?;
    }
    if !unnamed.is_empty() {
        store.note_unnamed_echoes(&unnamed).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(matches_instagram: bool) -> EchoReader {
        EchoReader { key: MetadataKey::derive("verify", "secret"), matches_instagram }
    }

    fn written(reader: &EchoReader) -> String {
        Metadata::write(reader.key.as_ref().expect("webhooks are on"), RowId(7), 2)
    }

    fn heard(class: Class, metadata: Option<&str>) -> HeardEcho<'_> {
        HeardEcho {
            class,
            account: "1",
            dest: "2",
            mid: "m_1",
            metadata,
            text: Some("hi"),
            at_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn metadata_names_row_and_fence() {
        let reader = reader(false);
        let metadata = written(&reader);
        let named = reader.named(&heard(Class::MESSENGER, Some(&metadata))).expect("it is ours");
        assert_eq!((named.row, named.fence, named.page_id.as_str()), (RowId(7), 2, "1"));
        assert_eq!(reader.named(&heard(Class::INSTAGRAM, Some(&metadata))), None);
        assert_eq!(reader.named(&heard(Class::MESSENGER, Some("md1.7.2.forged"))), None);
        assert_eq!(reader.named(&heard(Class::MESSENGER, None)), None);
    }

    #[test]
    fn instagram_counts_only_by_setting() {
        assert_eq!(reader(false).unnamed(&heard(Class::INSTAGRAM, None)), None);
        let noted = reader(true).unnamed(&heard(Class::INSTAGRAM, None)).expect("the setting is on");
        assert_eq!((noted.text, noted.at.unix_timestamp()), (text_digest("hi"), 1_700_000_000));
        assert_eq!(reader(true).unnamed(&heard(Class::MESSENGER, None)), None);
        assert_eq!(reader(true).unnamed(&heard(Class::INSTAGRAM, Some("theirs"))), None);
        let without_text = HeardEcho { text: None, ..heard(Class::INSTAGRAM, None) };
        assert_eq!(reader(true).unnamed(&without_text), None);
    }
}
