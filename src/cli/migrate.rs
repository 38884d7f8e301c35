//! `migrate`: creates or upgrades the database's schema.

use anyhow::Context;
use serde::Serialize;

use super::output::Output;
use crate::settings::Settings;
use crate::store::{self, SchemaState};

#[derive(Serialize)]
struct Migrated {
    /// Migrations that this run applied.
    applied: usize,
    schema: &'static str,
}

pub async fn run(settings: &Settings, out: &Output) -> anyhow::Result<()> {
    let database = settings.database.name();
    let store = store::open(&settings.database).await?;
    let migrated = async {
        let applied = store.migrate().await?;
        anyhow::Ok(Migrated { applied, schema: schema_word(store.schema().await?) })
    }
    .await;
    store.close().await;
    let migrated = migrated.with_context(|| format!("database {database}"))?;
    out.answer(&migrated, |migrated| {
        let plural = if migrated.applied == 1 { "" } else { "s" };
        let Migrated { applied, schema } = migrated;
        format!("{applied} migration{plural} applied; the schema is {schema}: {database}")
    })
}

/// Return the word for a schema's state.
pub fn schema_word(state: SchemaState) -> &'static str {
    match state {
        SchemaState::Current => "current",
        SchemaState::Newer => "newer",
        SchemaState::Older => "older",
    }
}
