//! `migrate`: creates or upgrades the database's schema, and makes the roles of the processes.

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::output::Output;
use crate::settings::Settings;
use crate::store::{self, SchemaState, Store, StoreError};

/// Arguments of `migrate`.
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    /// Also make the roles of the processes, and grant each its rights (PostgreSQL)
    #[arg(long)]
    roles: bool,
    /// Print the statements for the roles; change nothing
    #[arg(long, requires = "roles")]
    print: bool,
}

#[derive(Serialize)]
struct Migrated {
    /// Migrations that this run applied.
    applied: usize,
    schema: &'static str,
    /// Whether the roles were made and have their rights; left out if they were not asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    roles: bool,
}

#[derive(Serialize)]
struct Printed {
    statements: Vec<String>,
}

pub async fn run(arguments: MigrateArgs, settings: &Settings, out: &Output) -> anyhow::Result<()> {
    let database = settings.database.name();
    let store = store::open(&settings.database).await?;
    let done = match arguments.print {
        true => print(&*store, out).await,
        false => migrate(&*store, arguments.roles, &database, out).await,
    };
    store.close().await;
    done.with_context(|| format!("database {database}"))
}

async fn migrate(store: &dyn Store, roles: bool, database: &str, out: &Output) -> anyhow::Result<()> {
    let applied = store.migrate().await?;
    let schema = schema_word(store.schema().await?);
    if roles {
        match store.make_roles().await {
            Err(StoreError::Denied(_)) => bail!(
                "the user of database.url may not make roles, or does not own the tables: run `migrate --roles` as a \
                 superuser, or let one run the statements of `migrate --roles --print`"
            ),
            made => drop(made?),
        }
    }
    out.answer(&Migrated { applied, schema, roles }, |migrated| {
        let plural = if migrated.applied == 1 { "" } else { "s" };
        let Migrated { applied, schema, roles } = migrated;
        let roles = if *roles { "; the roles have their rights" } else { "" };
        format!("{applied} migration{plural} applied; the schema is {schema}{roles}: {database}")
    })
}

async fn print(store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    ensure!(
        store.schema().await? != SchemaState::Older,
        "the database has no schema of this version: run `meta-dispatch migrate`"
    );
    let printed = Printed { statements: store.role_statements().await? };
    out.answer(&printed, |printed| format!("begin;\n{};\ncommit;", printed.statements.join(";\n")))
}

/// Return the word for a schema's state.
pub fn schema_word(state: SchemaState) -> &'static str {
    match state {
        SchemaState::Current => "current",
        SchemaState::Newer => "newer",
        SchemaState::Older => "older",
    }
}
