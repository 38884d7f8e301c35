//! The schema: migrations, and the comparison of the database's with this program's.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::error::failed;
use super::log::ranges::IDS as RANGE_IDS;
use super::pool::Pool;
use super::rows;
use super::{PostgresStore, keep, roles};
use crate::store::schema::{migrations, migrator, versions};
use crate::store::{SchemaState, SchemaStore, StoreError};

/// The migrations, in their order.
pub(in crate::store) const MIGRATIONS: &[(&str, &str)] = &migrations!(
    "postgres": "0001_accounts" "0002_log" "0003_queue" "0004_once" "0005_campaigns" "0006_views"
        "0007_campaign_errors" "0008_tokens_and_bans" "0009_rights" "0010_submit_queues" "0011_webhooks"
        "0012_instagram_login" "0013_recipients" "0014_budgets" "0015_attachments" "0016_echoes"
);

#[async_trait]
impl SchemaStore for PostgresStore {
    async fn migrate(&self) -> Result<usize, StoreError> {
        self.check_sessions().await?;
        migrate(&self.background).await
    }

    async fn schema(&self) -> Result<SchemaState, StoreError> {
        self.check_sessions().await?;
        state(&self.background).await
    }

    async fn not_writable(&self) -> Result<Option<String>, StoreError> {
        // Each pool in turn: after a fail-over some may lead to the old server.
        let pools = self.pools();
        let pool = pools[self.sessions.turn() % pools.len()];
        let reason: Option<String> = sqlx::query_scalar(include_str!("sql/not_writable.sql"))
            .bind(RANGE_IDS)
            .bind(self.sessions.name("%"))
            .fetch_one(pool)
            .await
            .map_err(failed)?;
        if reason.as_ref().is_some_and(|reason| reason.starts_with("the server only reads")) {
            self.sessions.renew();
        }
        Ok(reason)
    }

    async fn ensure_room(&self) -> Result<usize, StoreError> {
        ensure_room(&self.scans).await
    }

    async fn drop_old(&self, keep: Duration) -> Result<u64, StoreError> {
        keep::drop_old(&self.background, keep).await
    }

    async fn role_statements(&self) -> Result<Vec<String>, StoreError> {
        roles::statements(&self.background).await
    }

    async fn make_roles(&self) -> Result<Vec<String>, StoreError> {
        roles::make(&self.background).await
    }

    async fn close(&self) {
        futures::future::join_all(self.pools().map(Pool::close)).await;
    }
}

async fn migrate(pool: &Pool) -> Result<usize, StoreError> {
    let place = check_place(pool).await?;
    let before = applied(pool).await?;
    if !is_known(&before) {
        place.may_create()?;
    }
    let before = before.len();
    let mut lent = pool.lend().await.map_err(failed)?;
    // Functions keep the path they are made with: by name, as `"$user"` may mean another schema later.
    sqlx::query("select set_config('search_path', quote_ident(current_schema()), false)")
        .execute(&mut *lent)
        .await
        .map_err(failed)?;
    roles::act_as_owner(&mut lent).await?;
    // `run` under another name, as the future of `run` is not general enough for a `Send` trait method.
    migrator(MIGRATIONS)
        .run_direct(&mut *lent)
        .await
        .map_err(|error| StoreError::Schema(error.to_string()))?;
    let after = applied_by(&mut lent).await?.len();
    // Also where nothing was applied: a former run may have ended before its rights were granted.
    roles::renew(&mut lent).await?;
    roles::act_as_user(&mut lent).await?;
    lent.give_back();
    ensure_room(pool).await?;
    Ok(after - before)
}

/// Refuse a database in which texts cannot be stored, and one where new tables would be made beside existing
/// ones.
async fn check_place(pool: &Pool) -> Result<SchemaPlace, StoreError> {
    let mut lent = pool.lend().await.map_err(failed)?;
    let place = pool.wait_for(place(&mut lent)).await?;
    lent.give_back();
    let SchemaPlace { encoding, there, new, .. } = &place;
    if encoding != "UTF8" {
        return Err(StoreError::Schema(format!(
            "the encoding of the database is {encoding}: make one with `createdb --encoding UTF8 --template template0`"
        )));
    }
    if let (Some(there), Some(new)) = (there, new)
        && there != new
    {
        return Err(StoreError::Schema(format!(
            "its tables are in the schema {there}, and new ones would be made in {new}: name the schema that is meant in \
             database.url, as `?options=-csearch_path%3D{there}`"
        )));
    }
    Ok(place)
}

impl SchemaPlace {
    /// Refuse to begin where the role may make no tables.
    fn may_create(&self) -> Result<(), StoreError> {
        let role = &self.role;
        match (&self.new, self.may_create) {
            (None, _) => Err(StoreError::Schema(
                "search_path names no schema that exists: make one, or name one in database.url, as \
                 `?options=-csearch_path%3DSCHEMA`"
                    .into(),
            )),
            (Some(new), Some(false)) => Err(StoreError::Schema(format!(
                "the role {role} may not create tables in the schema {new}: run `meta-dispatch migrate` as the role that \
                 is to own them, or `grant create on schema {new} to {role}`"
            ))),
            (Some(_), _) => Ok(()),
        }
    }
}

/// The schema of this program's tables, and the schema that new ones would be made in.
struct SchemaPlace {
    encoding: String,
    there: Option<String>,
    new: Option<String>,
    role: String,
    /// Whether the role may make tables in the new place.
    may_create: Option<bool>,
}

async fn place(connection: &mut PgConnection) -> Result<SchemaPlace, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    // The path that the URL, the role and the database set, without the path that this session chose.
    sqlx::query("set local search_path to default").execute(&mut *transaction).await.map_err(failed)?;
    let row = sqlx::query(
        "select pg_encoding_to_char(d.encoding)::text as encoding, current_schema()::text as new,
                current_user::text as role, has_schema_privilege(current_schema()::text, 'create') as may_create,
                (select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 where c.oid = to_regclass('cdls')) as there
         from pg_database d where d.datname = current_database()",
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.rollback().await.map_err(failed)?;
    Ok(SchemaPlace {
        encoding: rows::get(&row, "encoding")?,
        there: rows::get(&row, "there")?,
        new: rows::get(&row, "new")?,
        role: rows::get(&row, "role")?,
        may_create: rows::get(&row, "may_create")?,
    })
}

async fn state(pool: &Pool) -> Result<SchemaState, StoreError> {
    let applied = applied(pool).await?;
    Ok(if !is_known(&applied) {
        SchemaState::Older
    } else if applied.len() > MIGRATIONS.len() {
        SchemaState::Newer
    } else {
        SchemaState::Current
    })
}

/// Whether all migrations of this program are among those that were applied.
fn is_known(applied: &BTreeSet<i64>) -> bool {
    migrator(MIGRATIONS).iter().all(|migration| applied.contains(&migration.version))
}

/// Whether the table of migrations is found, and whether the tables are in a schema of the path that this role may not
/// use: PostgreSQL passes over such a schema.
const TABLE: &str = "
    select to_regclass('_sqlx_migrations') is not null,
           to_regclass('_sqlx_migrations') is null and exists (
               select from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where c.relname = 'cdls' and c.relkind = 'p' and not has_schema_privilege(n.oid, 'usage')
                 and strpos(current_setting('search_path'), n.nspname::text) > 0)";

/// Return the versions applied with success; none where there is no schema yet.
async fn applied(pool: &Pool) -> Result<BTreeSet<i64>, StoreError> {
    let mut lent = pool.lend().await.map_err(failed)?;
    let applied = pool.wait_for(applied_by(&mut lent)).await?;
    lent.give_back();
    Ok(applied)
}

/// Return the versions that are applied, as this connection sees them.
async fn applied_by(connection: &mut PgConnection) -> Result<BTreeSet<i64>, StoreError> {
    let (exists, is_closed): (bool, bool) =
        sqlx::query_as(TABLE).fetch_one(&mut *connection).await.map_err(failed)?;
    if is_closed {
        return Err(StoreError::denied("permission denied for the schema of the tables"));
    }
    if !exists {
        return Ok(BTreeSet::new());
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("select version, checksum from _sqlx_migrations where success")
            .fetch_all(connection)
            .await
            .map_err(failed)?;
    versions(applied, &migrator(MIGRATIONS))
}

async fn ensure_room(pool: &Pool) -> Result<usize, StoreError> {
    let made: i32 =
        sqlx::query_scalar("select cdls_ensure_partitions()").fetch_one(pool).await.map_err(failed)?;
    Ok(made as usize)
}
