//! `app`: Meta's apps, whose secrets sign webhooks and calls, and whose verify tokens answer for the webhook's URL.
//!
//! The secrets are read from standard input or from files, are sealed for the app, and are never shown.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use time::OffsetDateTime;

use super::output::{Output, tell_note};
use super::screen::Screen;
use super::table::{Column, Table, date_and_time, or_dash};
use super::{help, parse};
use crate::seal::{KeyRing, Purpose, is_sealed};
use crate::settings::ExposedFile;
use crate::store::{AppRecord, NewApp, Store};
use crate::text::trimmed;

/// Far above the length of any of Meta's secrets.
const LONGEST: u64 = 16 * 1024;

#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Add an app of Meta, or replace its secrets; takes effect within 10 seconds
    #[command(after_help = help::APP_ADD)]
    Add(AddArgs),
    /// List the apps, without their secrets
    List,
    /// Remove an app; refused while lines belong to it
    Remove {
        /// Meta's id of the app
        #[arg(value_name = "APP_ID", value_parser = parse::meta_id)]
        app: String,
    },
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Meta's id of the app
    #[arg(long, value_name = "APP_ID", value_parser = parse::meta_id)]
    id: String,
    /// Name that lists show
    #[arg(long, value_parser = parse::name)]
    name: Option<String>,
    #[command(flatten)]
    secret: SecretSource,
    /// Read the verify token of the app's webhook from a file
    #[arg(long, value_name = "FILE")]
    verify_token_file: PathBuf,
}

/// The source of the app secret.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SecretSource {
    /// Read the app secret from standard input
    #[arg(long)]
    secret_stdin: bool,
    /// Read the app secret from a file
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Added {
    meta_app_id: String,
    /// Whether there was no such app before.
    is_new: bool,
    is_sealed: bool,
}

/// An app as listed: never its secrets.
#[derive(Serialize)]
struct AppView {
    meta_app_id: String,
    name: Option<String>,
    secret: &'static str,
    verify_token: &'static str,
    #[serde(serialize_with = "crate::text::time")]
    created_at: OffsetDateTime,
}

#[derive(Serialize)]
struct AppList {
    apps: Vec<AppView>,
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

pub async fn run(command: AppCommand, store: &dyn Store, keys: &KeyRing, out: &Output) -> anyhow::Result<()> {
    match command {
        AppCommand::Add(args) => {
            let added = add(args, store, keys).await?;
            if !added.is_sealed {
                tell_note(
                    "security.app_key is not set: the secrets are stored in plain; `key seal` seals them later",
                );
            }
            out.answer(&added, |added| {
                let done = if added.is_new { "added" } else { "replaced" };
                format!("app {} {done}; every process knows within 10 seconds", added.meta_app_id)
            })
        }
        AppCommand::List => {
            let apps = AppList { apps: store.apps().await?.iter().map(AppView::of).collect() };
            out.answer(&apps, |apps| list(&apps.apps, out.screen))
        }
        AppCommand::Remove { app } => {
            ensure!(store.remove_app(&app).await?, "no app {app}");
            out.answer(&Removed { removed: app }, |removed| {
                format!("app {} removed; its webhooks are refused within 10 seconds", removed.removed)
            })
        }
    }
}

async fn add(args: AddArgs, store: &dyn Store, keys: &KeyRing) -> anyhow::Result<Added> {
    let AddArgs { id, name, secret, verify_token_file } = args;
    let verify_token = from_file("--verify-token-file", &verify_token_file, "the verify token")?;
    let secret = secret.read()?;
    let stored = |secret: SecretString, purpose: Purpose<'_>| match keys.first() {
        Some(key) => key.seal(&secret, purpose),
        None => secret,
    };
    let app = NewApp {
        secret: stored(secret, Purpose::AppSecret(&id)),
        verify_token: stored(verify_token, Purpose::VerifyToken(&id)),
        id: id.clone(),
        name,
    };
    let is_new = store.put_app(&app).await?;
    Ok(Added { meta_app_id: id, is_new, is_sealed: keys.first().is_some() })
}

impl SecretSource {
    fn read(&self) -> anyhow::Result<SecretString> {
        const WHAT: &str = "the app secret";
        match &self.secret_file {
            Some(path) => from_file("--secret-file", path, WHAT),
            None => {
                let stdin = io::stdin();
                if stdin.is_terminal() {
                    tell_note("Paste the app secret, press Enter, then Ctrl-D:");
                }
                read(stdin.lock(), WHAT).context("standard input")
            }
        }
    }
}

fn from_file(option: &str, path: &Path, what: &str) -> anyhow::Result<SecretString> {
    let named = || path.display().to_string();
    ExposedFile::look(option, path).iter().for_each(ExposedFile::warn);
    read(File::open(path).with_context(named)?, what).with_context(named)
}

/// Read a secret, without white space around it. No error repeats it.
fn read(source: impl Read, what: &str) -> anyhow::Result<SecretString> {
    // In its full length from the start: a buffer that grows leaves copies of the secret.
    let mut bytes = Zeroizing::new(Vec::<u8>::with_capacity(LONGEST as usize + 1));
    source.take(LONGEST + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= LONGEST, "{what} is longer than {LONGEST} bytes");
    let Ok(text) = std::str::from_utf8(&bytes) else { bail!("{what} is not text") };
    let secret = trimmed(text);
    ensure!(!secret.is_empty(), "{what} is empty");
    if let Some(wrapping) = parse::wrapping(secret) {
        bail!("{what} has {wrapping}: give it alone");
    }
    ensure!(!is_sealed(secret), "{what} begins with `enc:`, as sealed ones do: give it as Meta shows it");
    ensure!(
        secret.bytes().all(|byte| byte.is_ascii_graphic()),
        "{what} holds spaces, control characters or letters outside ASCII"
    );
    Ok(SecretString::from(secret))
}

impl AppView {
    fn of(app: &AppRecord) -> AppView {
        let form = |stored: &Option<SecretString>| match stored.as_ref().map(|secret| secret.expose_secret())
        {
            None | Some("") => "none",
            Some(text) if is_sealed(text) => "sealed",
            Some(_) => "plain",
        };
        AppView {
            meta_app_id: app.id.clone(),
            name: app.name.clone(),
            secret: form(&app.secret),
            verify_token: form(&app.verify_token),
            created_at: app.created_at,
        }
    }
}

fn list(apps: &[AppView], screen: Screen) -> String {
    const COLUMNS: [Column; 5] = [
        Column::new("APP_ID"),
        Column::text("NAME", 8),
        Column::new("SECRET"),
        Column::new("VERIFY TOKEN"),
        Column::new("CREATED AT"),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for app in apps {
        table.add([
            app.meta_app_id.clone(),
            or_dash(app.name.as_ref()),
            app.secret.to_owned(),
            app.verify_token.to_owned(),
            date_and_time(app.created_at),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn white_space_around_a_secret_is_cut_off() {
        let secret = read(" 0011aabb\r\n".as_bytes(), "the app secret").expect("a good secret");
        assert_eq!(secret.expose_secret(), "0011aabb");
    }

    #[rstest]
    #[case::empty(b" \n")]
    #[case::two_words(b"0011 aabb")]
    #[case::quotes(b"\"0011aabb\"")]
    #[case::sealed(b"enc:v1:0011aabb:AAAA")]
    #[case::no_text(b"0011\xff")]
    #[case::endless(&[b'0'; LONGEST as usize + 1])]
    fn malformed_secret_is_refused_and_not_shown(#[case] bytes: &[u8]) {
        let error = read(bytes, "the app secret").expect_err("no secret");
        let told = format!("{error:#} {error:?}");
        assert!(told.contains("the app secret") && !told.contains("0011"), "{told}");
    }
}
