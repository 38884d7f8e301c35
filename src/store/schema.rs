//! The schema of the database: made, upgraded, and compared with the schema that this program was built for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::StoreError;

/// The schema of the database, compared with that of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    Current,
    /// Written by a later version; later versions only add, so this one works with it.
    Newer,
    /// The operator has to run `migrate` before this process is ready.
    Older,
}

/// The migrations of a database, each a file of `migrations/<folder>` that is named here.
///
/// `sqlx::migrate!` reads the folder by itself; its macros compile all of sqlx a second time, for the
/// compiler's own use.
macro_rules! migrations {
    ($folder:literal: $($name:literal)+) => {
        [$((
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/", $folder, "/", $name, ".sql")),
        )),+]
    };
}
pub(super) use migrations;

/// Return the migrator of these files. Later versions only add to the schema, so an applied migration unknown
/// to this program is no reason to stop.
pub(super) fn migrator(files: &'static [(&'static str, &'static str)]) -> Migrator {
    let migrations = files.iter().map(|(name, sql)| {
        let (version, about) = name.split_once('_').expect("a file is named 0001_about");
        let version = version.parse().expect("a file's name begins with its number");
        Migration::new(version, about.replace('_', " ").into(), MigrationType::Simple, (*sql).into(), false)
    });
    let migrations = Cow::Owned(migrations.collect());
    Migrator { migrations, ignore_missing: true, ..Migrator::DEFAULT }
}

/// Return the versions of applied migrations; an error where one of them was another migration: the database
/// was made before the log was parted from the queue, and cannot be upgraded.
pub(super) fn versions(applied: Vec<(i64, Vec<u8>)>, ours: &Migrator) -> Result<BTreeSet<i64>, StoreError> {
    for migration in ours.iter() {
        if applied.iter().any(|(version, sum)| *version == migration.version && *sum != *migration.checksum) {
            return Err(StoreError::Schema(
                "the database was made by an early version of this program and cannot be upgraded: use a new one".into(),
            ));
        }
    }
    Ok(applied.into_iter().map(|(version, _)| version).collect())
}

/// The statements about the database itself.
#[async_trait]
pub trait SchemaStore: Send + Sync {
    /// Create or upgrade the schema; return how many migrations were applied.
    async fn migrate(&self) -> Result<usize, StoreError>;

    /// Compare the schema with this program's. A database without any schema is `Older`.
    async fn schema(&self) -> Result<SchemaState, StoreError>;

    /// Return the reason why messages cannot be logged although the database answers; `None`: they can.
    async fn not_writable(&self) -> Result<Option<String>, StoreError>;

    /// Make room for the ids to come (PostgreSQL: ranges of `cdls`). Return how many ranges were made.
    async fn ensure_room(&self) -> Result<usize, StoreError>;

    /// Drop ended rows of the log that are older than `keep` (PostgreSQL: whole ranges of ids without an open
    /// row). Return how many ranges, or rows, were dropped.
    async fn drop_old(&self, keep: Duration) -> Result<u64, StoreError>;

    /// Return the statements that make the roles of the processes and grant each its rights; `Invalid` on a database
    /// without roles.
    async fn role_statements(&self) -> Result<Vec<String>, StoreError>;

    /// Run those statements; return them. Can be repeated.
    async fn make_roles(&self) -> Result<Vec<String>, StoreError>;

    /// Close the pools; later calls fail.
    async fn close(&self);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use crate::store::{postgres, sqlite};

    #[test]
    fn embeds_every_migration_file() {
        let embedded = [("postgres", postgres::MIGRATIONS), ("sqlite", sqlite::MIGRATIONS)];
        for (folder, migrations) in embedded {
            let folder = format!("{}/migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
            let entries = fs::read_dir(folder).expect("the folder is part of the repository");
            let files: BTreeSet<String> = entries
                .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
                .collect();
            let named: BTreeSet<String> = migrations.iter().map(|(name, _)| format!("{name}.sql")).collect();
            assert_eq!(named, files);
        }
    }
}
