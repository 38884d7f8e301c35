//! The command line: what can be typed, and which module answers it.
//!
//! One file per group of commands; those of operators work over `&dyn Store`, those of senders over HTTP; each answers
//! through [`output::Output`]. A new command also needs a place in the groups of [`help`]. Never here: SQL, and page
//! access tokens or API tokens as arguments.

mod account;
mod app;
mod app_secrets;
mod attachment;
mod ban;
mod broker;
mod campaign;
mod cancel;
mod check;
mod codes;
mod demo;
mod ending_tokens;
mod export;
mod fields;
mod health;
mod help;
mod key;
mod line;
mod line_change;
mod line_check;
mod line_view;
mod listing;
mod log;
mod manual;
mod migrate;
mod output;
mod page_token;
mod parse;
mod progress;
mod reach;
mod recipient;
mod reconcile;
mod rehearsal;
mod rejected;
mod remote;
mod screen;
mod send;
mod serve;
mod settle;
mod simulate;
mod stopped_lines;
mod stored_tokens;
mod table;
mod tail;
mod token;
mod upload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};

use crate::api;
use crate::app::Role;
use crate::edge::tokens::TokenKeys;
use crate::seal::KeyRing;
use crate::settings::{ExposedFile, Settings};
use crate::store::{self, SchemaState, SharedStore, Store, StoreError};
use crate::telemetry;
use output::Output;

/// Accept Messenger and Instagram messages, log them, and send them through Meta's Graph API
#[derive(Debug, Parser)]
#[command(
    name = "meta-dispatch",
    version,
    help_template = help::template(),
    after_help = help::PROGRAM,
    max_term_width = 120
)]
pub struct Cli {
    /// Read settings from this TOML file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the answer as one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    /// The reason why the program was not started again with deep stacks, if it had to be.
    #[arg(skip)]
    pub without_deep_stacks: Option<std::io::Error>,
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Whether the command connects to RabbitMQ for as long as it runs.
    pub fn reads_what_producers_send(&self) -> bool {
        matches!(self.command, Command::Serve | Command::Ingest | Command::Worker)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Accept and send messages in one process (needs nothing else)
    #[command(after_help = help::SERVE)]
    Serve,
    /// Accept messages over HTTP (needs PostgreSQL and RabbitMQ)
    #[command(after_help = help::INGEST)]
    Ingest,
    /// Send messages (needs PostgreSQL and RabbitMQ)
    #[command(after_help = help::WORKER)]
    Worker,
    /// Try the program against the built-in simulator of Graph
    #[command(after_help = help::DEMO)]
    Demo(DemoArgs),
    /// Run only the built-in simulator of Meta's Graph API
    #[command(after_help = crate::simulator::outcomes_help())]
    Simulate(Box<simulate::SimulateArgs>),
    /// Create or upgrade the database's schema (not needed on SQLite)
    Migrate(migrate::MigrateArgs),
    /// Show the settings; check the database, the broker and Graph
    Check,
    /// Exit with 0 if the process on this machine is ready, else 1
    Health,
    /// Send one message through a running meta-dispatch
    #[command(after_help = help::SEND)]
    Send(Box<send::SendArgs>),
    /// Show, pause, resume or cancel a campaign
    #[command(subcommand)]
    Campaign(Box<campaign::CampaignCommand>),
    /// Print the table by which answers of Graph are judged
    Codes(codes::CodesArgs),
    /// Print the HTTP interface as an OpenAPI 3.1 document
    Openapi,
    /// Print the completion script for a shell
    Completions {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// Folder that receives the pages
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Manage accounts, which own lines, and their RabbitMQ users
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Print the permissions of RabbitMQ users
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// Show submissions over RabbitMQ that were refused
    #[command(subcommand)]
    Rejected(rejected::RejectedCommand),
    /// Add, list or revoke API tokens (tsid)
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List banned addresses, or lift their bans
    #[command(subcommand)]
    Ban(ban::BanCommand),
    /// Manage lines: the Pages and Instagram accounts that send
    #[command(subcommand)]
    Line(line::LineCommand),
    /// Manage Meta's apps: the secrets that sign webhooks and calls
    #[command(subcommand)]
    App(app::AppCommand),
    /// Make a key; seal the stored page tokens and the secrets of apps
    #[command(subcommand, after_help = help::KEY)]
    Key(key::KeyCommand),
    /// List or forget uploaded images, audios, videos and files
    #[command(subcommand)]
    Attachment(attachment::AttachmentCommand),
    /// Show what is known of a recipient
    #[command(subcommand)]
    Recipient(recipient::RecipientCommand),
    /// Read the message log; settle, resend or cancel messages
    #[command(subcommand)]
    Log(log::LogCommand),
}

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Send one message of each kind and each outcome, print the log, and exit
    #[arg(long)]
    pub once: bool,
}

/// Runs one command. Exit code 0, or 1 after one line on standard error; wrong usage never gets here (clap, 2).
pub async fn run(cli: Cli) -> ExitCode {
    let json = cli.json;
    let done = dispatch(cli).await;
    telemetry::finish();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::reader_is_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::tell_error(&error, json);
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let settings = Settings::load(cli.config.as_deref())?;
    begin_log(&cli, &settings)?;
    let out = Output::new(cli.json);
    match cli.command {
        Command::Serve => serve::run(&settings, Role::Serve).await,
        Command::Ingest => serve::run(&settings, Role::Ingest).await,
        Command::Worker => serve::run(&settings, Role::Worker).await,
        Command::Demo(arguments) => demo::run(arguments.once, cli.config.as_deref(), &out).await,
        Command::Simulate(arguments) => simulate::run(*arguments, &settings, &out).await,
        Command::Migrate(arguments) => migrate::run(arguments, &settings, &out).await,
        Command::Check => check::run(&settings, &out).await,
        Command::Health => health::run(&settings, &out).await,
        Command::Send(arguments) => send::run(*arguments, &out).await,
        Command::Campaign(command) => campaign::run(*command, &out).await,
        Command::Rejected(command) => rejected::run(command, &settings.broker, &out).await,
        Command::Codes(arguments) => codes::run(arguments, &settings, &out),
        Command::Openapi => out.text(&api::document()),
        Command::Completions { shell } => manual::completions(shell, &out),
        Command::Man { folder } => manual::man(&folder, &out),
        Command::Account(command) => {
            let store = account_store(&command, &settings).await;
            let keys = token_keys(&settings)?;
            with_store(&settings, store, &out, async |store| account::run(command, store, &keys, &out).await)
                .await
        }
        Command::Broker(command) => {
            let (store, rabbitmq) = (store::open_existing(&settings.database).await, &settings.broker);
            with_store(&settings, store, &out, async |store| {
                broker::run(command, store, rabbitmq, &out).await
            })
            .await
        }
        Command::Token(command) => {
            let store = store::open_existing(&settings.database).await;
            let keys = token_keys(&settings)?;
            with_store(&settings, store, &out, async |store| token::run(command, store, &keys, &out).await)
                .await
        }
        Command::Ban(command) => {
            let store = store::open_existing(&settings.database).await;
            with_store(&settings, store, &out, async |store| ban::run(command, store, &out).await).await
        }
        Command::Line(command) => {
            let (store, keys) = (store::open_existing(&settings.database).await, key_ring(&settings)?);
            with_store(&settings, store, &out, async |store| {
                line::run(command, store, &settings, &keys, &out).await
            })
            .await
        }
        Command::Attachment(command) => {
            let store = store::open_existing(&settings.database).await;
            with_store(&settings, store, &out, async |store| attachment::run(command, store, &out).await)
                .await
        }
        Command::App(command) => {
            let (keys, store) = (app_keys(&settings)?, store::open_existing(&settings.database).await);
            with_store(&settings, store, &out, async |store| app::run(command, store, &keys, &out).await)
                .await
        }
        Command::Recipient(command) => {
            let store = store::open_existing(&settings.database).await;
            with_store(&settings, store, &out, async |store| recipient::run(command, store, &out).await).await
        }
        Command::Key(key::KeyCommand::Generate) => key::generate(&out),
        Command::Key(command) => {
            let rings = (key_ring(&settings)?, app_keys(&settings)?);
            let store = store::open_existing(&settings.database).await;
            with_store(&settings, store, &out, async |store| {
                key::run(command, store, &rings.0, &rings.1, &out).await
            })
            .await
        }
        Command::Log(command) => {
            let store = store::open_existing(&settings.database).await;
            with_store(&settings, store, &out, async |store| log::run(command, &settings, store, &out).await)
                .await
        }
    }
}

impl Command {
    /// The filter of the process log where `log.filter` is empty.
    fn log_filter(&self) -> &'static str {
        match self {
            Command::Serve | Command::Ingest | Command::Worker | Command::Simulate(_) => {
                "info,lapin=off,rustls_platform_verifier=off"
            }
            // Its warnings would stand between the rows of the table on the same terminal.
            Command::Demo(_) => "error,rustls_platform_verifier=off",
            _ => "warn",
        }
    }
}

/// Begin the process log, with the warnings of the start.
fn begin_log(cli: &Cli, settings: &Settings) -> anyhow::Result<()> {
    telemetry::install(&settings.log, cli.command.log_filter())?;
    settings.exposed_files.iter().for_each(ExposedFile::warn);
    if let Some(error) = &cli.without_deep_stacks {
        tracing::warn!(%error, "stacks are shallow: a producer can end this process; set RUST_MIN_STACK=268435456");
    }
    Ok(())
}

/// Open the store of an account command: the first one may be the first command on a new database.
async fn account_store(
    command: &account::AccountCommand,
    settings: &Settings,
) -> Result<SharedStore, StoreError> {
    match command {
        account::AccountCommand::Add { .. } => store::open(&settings.database).await,
        _ => store::open_existing(&settings.database).await,
    }
}

/// Return the keys of `security.key`.
fn key_ring(settings: &Settings) -> anyhow::Result<KeyRing> {
    let keys = settings.security.keys()?;
    Ok(KeyRing::new(keys.iter().map(|key| &**key)))
}

/// Return the keys of `security.app_key`.
fn app_keys(settings: &Settings) -> anyhow::Result<KeyRing> {
    let keys = settings.security.app_keys()?;
    Ok(KeyRing::new(keys.iter().map(|key| &**key)))
}

/// Return the keys of `security.token_key`.
fn token_keys(settings: &Settings) -> anyhow::Result<TokenKeys> {
    let keys = settings.security.token_keys()?;
    Ok(TokenKeys::new(keys.iter().map(|key| &**key)))
}

/// Makes sure that the schema of an opened store is known, runs the command, closes the store, and names its database.
async fn with_store(
    settings: &Settings,
    store: Result<SharedStore, StoreError>,
    out: &Output,
    command: impl AsyncFnOnce(&dyn Store) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let store = store?;
    let result = async {
        let schema = store.schema().await?;
        ensure!(
            schema != SchemaState::Older,
            "the database has no schema of this version: run `meta-dispatch migrate`"
        );
        command(&*store).await
    }
    .await;
    store.close().await;
    let database = settings.database.name();
    if result.is_ok() && !out.json {
        output::tell_note(&format!("Database: {database}"));
    }
    result.with_context(|| format!("database {database}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in
            [["meta-dispatch", "--json", "account", "list"], ["meta-dispatch", "account", "list", "--json"]]
        {
            assert!(Cli::try_parse_from(line).expect("it is well formed").json);
        }
    }

    #[test]
    fn a_page_token_is_no_argument_and_comes_from_one_source() {
        let add = "meta-dispatch line add --account 1 --class messenger --page-id 1";
        for (rest, fits) in [
            ("--pat-stdin", true),
            ("--pat-file token.txt", true),
            ("", false),
            ("--pat EAAtoken", false),
            ("--pat-stdin --pat-file token.txt", false),
        ] {
            let line = add.split(' ').chain(rest.split_whitespace());
            assert_eq!(Cli::try_parse_from(line).is_ok(), fits, "{rest}");
        }
    }

    #[test]
    fn a_messenger_line_needs_its_page_id_and_an_instagram_line_does_not() {
        for (class, fits) in [("messenger", false), ("instagram", true)] {
            let line = ["meta-dispatch", "line", "add", "--account", "1", "--class", class, "--pat-stdin"];
            assert_eq!(Cli::try_parse_from(line).is_ok(), fits, "{class}");
        }
    }
}
