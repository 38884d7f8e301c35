//! The life of tokens: which are to be refreshed, the successor of one, and which end soon.
//!
//! A token is changed only over the one that was seen: each change of its text makes a new version. Never here: keys,
//! and the decision to refresh.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use time::OffsetDateTime;

use super::StoreError;
use crate::channel::Login;
use crate::domain::{LineId, Partition};

/// A token that may have to be refreshed.
#[derive(Debug, Clone)]
pub struct AgeingToken {
    pub line: LineId,
    /// The chosen way to connect; `None`: the token shows it.
    pub login: Option<Login>,
    /// The token, plain or sealed, as stored.
    pub text: SecretString,
    pub version: i64,
    /// The time until its end, zero if that has passed; `None`: not known.
    pub left: Option<Duration>,
    /// The time since it was set or refreshed; `None`: not known.
    pub held: Option<Duration>,
}

/// The successor of a token.
#[derive(Debug, Clone)]
pub struct RefreshedToken {
    /// As it is to be stored.
    pub text: SecretString,
    /// `None`: not known.
    pub valid_for: Option<Duration>,
    /// The time until the next look at it.
    pub next_try: Duration,
}

/// A token whose end is near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndingToken {
    pub line: LineId,
    pub expires_at: OffsetDateTime,
    /// Zero: it has ended.
    pub left: Duration,
    /// The failure of the last try to refresh it.
    pub error: Option<String>,
}

/// The statements about the life of tokens.
#[async_trait]
pub trait RefreshStore: Send + Sync {
    /// Return at most `limit` tokens of these partitions that Instagram Login may have made, of lines that are switched
    /// on, whose next try is due and whose end is not known or within `within`.
    async fn ageing_tokens(
        &self,
        partitions: &[Partition],
        within: Duration,
        limit: u32,
    ) -> Result<Vec<AgeingToken>, StoreError>;

    /// Put the next try off, and note the failure of the last one; return whether the token still has this version and
    /// its try was due: one of several processes alone goes on.
    async fn put_off_refresh(
        &self,
        line: LineId,
        version: i64,
        next_try: Duration,
        error: Option<&str>,
    ) -> Result<bool, StoreError>;

    /// Note the failure of a try, if there was one, and the next try; return whether the token still has this version.
    async fn note_refresh_failure(
        &self,
        line: LineId,
        version: i64,
        next_try: Duration,
        error: Option<&str>,
    ) -> Result<bool, StoreError>;

    /// Write the successor of a token that still has this version; return whether it had. A pause goes on.
    async fn renew_token(
        &self,
        line: LineId,
        version: i64,
        token: &RefreshedToken,
    ) -> Result<bool, StoreError>;

    /// Note the end of a token that still has this version, as Meta tells it, or that Meta knows none, and have the token
    /// looked at; return whether it had.
    async fn note_token_end(
        &self,
        line: LineId,
        version: i64,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<bool, StoreError>;

    /// Return at most `limit` tokens of lines that are switched on which end within this time, the first to end first.
    async fn ending_tokens(&self, within: Duration, limit: u32) -> Result<Vec<EndingToken>, StoreError>;
}
