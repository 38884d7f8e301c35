//! `key`: new keys, and the sealing of stored page tokens and of the secrets of Meta's apps.
//!
//! The commands run beside busy workers: each token is replaced where it still has the text that was read, and
//! nothing else of its line changes. A run that was cut off is repeated. Never here: a page access token in an
//! answer or an error.

use anyhow::{Context, ensure};
use clap::Subcommand;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::app_secrets::{AppSecretChoice, SealedSecrets};
use super::output::{Answered, Output, tell_note};
use super::parse;
use crate::domain::LineId;
use crate::seal::{self, Key, KeyRing, Purpose, is_sealed};
use crate::store::{Store, StoreError, StoredPageToken};
use crate::text::trimmed;

/// Page tokens read at a time.
pub const BATCH: u32 = 500;

/// Times that a token is read while other programs change it.
const LOOKS: usize = 3;

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Print a new key for security.key, security.app_key or security.token_key
    Generate,
    /// Seal the page tokens and the secrets of apps that are stored in plain
    Seal {
        /// Seal only the token of this line
        #[arg(long, value_name = "V8L_ID", value_parser = parse::id(LineId))]
        line: Option<LineId>,
    },
    /// Seal with the first key what other keys of security.key and security.app_key sealed
    Rotate,
}

#[derive(Serialize)]
struct Generated<'a> {
    key: &'a str,
}

/// The page tokens that a command seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Plain,
    OfOtherKeys,
}

/// The result of a run.
#[derive(Default, Serialize)]
struct Sealed {
    sealed: u64,
    already: u64,
    failed: Vec<NotSealed>,
    /// Tokens in plain that the command leaves alone.
    #[serde(skip)]
    plain: u64,
    /// The secrets of apps; `None` where the command leaves them alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    apps: Option<SealedSecrets>,
}

#[derive(Serialize)]
struct NotSealed {
    v8l_id: LineId,
    reason: String,
}

/// The next step for a stored token.
enum Step {
    Replace(SecretString),
    /// The token is sealed already.
    Already,
    LeavePlain,
    Fail(String),
}

/// Print a new key.
pub fn generate(out: &Output) -> anyhow::Result<()> {
    let key = seal::generate();
    out.answer(&Generated { key: key.expose_secret() }, |generated| generated.key.to_owned())
}

/// Run a command on the stored page tokens, and on the secrets of apps.
pub async fn run(
    command: KeyCommand,
    store: &dyn Store,
    keys: &KeyRing,
    app_keys: &KeyRing,
    out: &Output,
) -> anyhow::Result<()> {
    match command {
        KeyCommand::Generate => generate(out),
        KeyCommand::Seal { line: Some(line) } => {
            let run = Run { choice: Choice::Plain, first: first(keys)?, keys, store };
            tell(&run.over(Some(line)).await?, out)
        }
        KeyCommand::Seal { line: None } => tell(&all(Choice::Plain, store, keys, app_keys).await?, out),
        KeyCommand::Rotate => rotate(store, keys, app_keys, out).await,
    }
}

/// Seal with the first key what other keys sealed.
async fn rotate(store: &dyn Store, keys: &KeyRing, app_keys: &KeyRing, out: &Output) -> anyhow::Result<()> {
    let done = all(Choice::OfOtherKeys, store, keys, app_keys).await?;
    if done.plain > 0 {
        tell_note(&format!("page tokens in plain: {}; `key seal` seals them", done.plain));
    }
    if let Some(apps) = done.apps.as_ref().filter(|apps| apps.plain > 0) {
        tell_note(&format!("secrets of apps in plain: {}; `key seal` seals them", apps.plain));
    }
    tell(&done, out)
}

/// Seal the chosen secrets of all lines and apps, as far as there are keys for them.
async fn all(
    choice: Choice,
    store: &dyn Store,
    keys: &KeyRing,
    app_keys: &KeyRing,
) -> anyhow::Result<Sealed> {
    let mut done = match (keys.first(), app_keys.first()) {
        (None, Some(_)) => Sealed::default(),
        _ => Run { choice, first: first(keys)?, keys, store }.over(None).await?,
    };
    if app_keys.first().is_some() {
        let choice = match choice {
            Choice::Plain => AppSecretChoice::Plain,
            Choice::OfOtherKeys => AppSecretChoice::OfOtherKeys,
        };
        done.apps = Some(SealedSecrets::over(choice, store, app_keys).await?);
    }
    Ok(done)
}

fn first(keys: &KeyRing) -> anyhow::Result<&Key> {
    keys.first().context("setting security.key: no key is set; `meta-dispatch key generate` prints one")
}

fn tell(done: &Sealed, out: &Output) -> anyhow::Result<()> {
    out.answer(done, |done| {
        let counts = format!("page tokens sealed: {}; sealed already: {}", done.sealed, done.already);
        let failed = done.failed.iter().map(|failed| format!("line {}: {}", failed.v8l_id, failed.reason));
        let apps = done.apps.iter().flat_map(SealedSecrets::human);
        std::iter::once(counts).chain(failed).chain(apps).collect::<Vec<_>>().join("\n")
    })?;
    match (done.failed.len(), done.apps.as_ref().map_or(0, SealedSecrets::failures)) {
        (0, 0) => Ok(()),
        (0, failed) => Err(Answered(format!("secrets of apps that could not be sealed: {failed}")).into()),
        (failed, _) => Err(Answered(format!("page tokens that could not be sealed: {failed}")).into()),
    }
}

/// A run over the stored page tokens.
struct Run<'a> {
    choice: Choice,
    first: &'a Key,
    keys: &'a KeyRing,
    store: &'a dyn Store,
}

impl Run<'_> {
    /// Seal the chosen tokens of one line or of all.
    async fn over(&self, line: Option<LineId>) -> anyhow::Result<Sealed> {
        let mut done = Sealed::default();
        if let Some(line) = line {
            let token = self.read(line).await?;
            ensure!(token.is_some(), "line {line} does not exist, or has no page token");
            self.seal(line, token, &mut done).await?;
            return Ok(done);
        }
        let mut after = LineId(0);
        loop {
            let tokens = self.store.page_tokens(after, BATCH).await?;
            let Some(last) = tokens.last() else { return Ok(done) };
            after = last.line;
            for token in tokens {
                self.seal(token.line, Some(token), &mut done).await?;
            }
        }
    }

    /// Seal a token, read anew as long as others change it, and count it. A token that is gone is left out.
    async fn seal(
        &self,
        line: LineId,
        mut token: Option<StoredPageToken>,
        done: &mut Sealed,
    ) -> Result<(), StoreError> {
        for _ in 0..LOOKS {
            let Some(stored) = token else { return Ok(()) };
            match self.step(&stored) {
                Step::Already => {
                    done.already += 1;
                    return Ok(());
                }
                Step::LeavePlain => {
                    done.plain += 1;
                    return Ok(());
                }
                Step::Fail(reason) => {
                    done.failed.push(NotSealed { v8l_id: line, reason });
                    return Ok(());
                }
                Step::Replace(sealed) => {
                    if self.store.swap_page_token(line, &stored.text, &sealed).await? {
                        done.sealed += 1;
                        return Ok(());
                    }
                }
            }
            token = self.read(line).await?;
        }
        let reason = "its page token keeps changing: run the command again".to_owned();
        done.failed.push(NotSealed { v8l_id: line, reason });
        Ok(())
    }

    async fn read(&self, line: LineId) -> Result<Option<StoredPageToken>, StoreError> {
        let found = self.store.page_tokens(LineId(line.0 - 1), 1).await?.pop();
        Ok(found.filter(|token| token.line == line))
    }

    fn step(&self, token: &StoredPageToken) -> Step {
        // Programs leave line ends behind a token.
        let text = trimmed(token.text.expose_secret());
        let purpose = Purpose::PageToken(token.line);
        match (self.choice, is_sealed(text)) {
            (Choice::Plain, false) => Step::Replace(self.first.seal(&text.into(), purpose)),
            (Choice::Plain, true) => Step::Already,
            (Choice::OfOtherKeys, false) => Step::LeavePlain,
            (Choice::OfOtherKeys, true) => match self.keys.open(&text.into(), purpose) {
                Ok(_) if seal::key_id(text) == Some(self.first.id()) => Step::Already,
                Ok(secret) => Step::Replace(self.first.seal(&secret, purpose)),
                Err(refusal) => Step::Fail(refusal.to_string()),
            },
        }
    }
}
