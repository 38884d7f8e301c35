//! The roles of the processes, and the rights that each needs: `migrate --roles`.
//!
//! The roles are group roles without a login; the users of the processes are members. A role has the rights that its
//! process uses and no others: `ingest` cannot read a page token. Roles belong to the server and not to one database:
//! several databases share them, and several programs may make them at once.
//!
//! Never here: users, and passwords.

use std::time::Duration;

use sqlx::{Connection, Error, PgConnection, Row};

use super::error::failed;
use super::pool::Pool;
use crate::store::StoreError;

const INGEST: &str = "meta_dispatch_ingest";
const WORKER: &str = "meta_dispatch_worker";
/// The owner of the tables, who may change them.
const MIGRATE: &str = "meta_dispatch_migrate";
const DASHBOARD: &str = "meta_dispatch_dashboard";
const ROLES: [&str; 4] = [INGEST, WORKER, MIGRATE, DASHBOARD];

/// The columns that only roles may read that call Graph or replace tokens.
static SECRET_COLUMNS: [&str; 1] = ["v8l_wa_api_key"];
/// The mark in [`RELATIONS`] for all other columns.
const OPEN_COLUMNS: &str = "{open columns}";

/// A table, view or sequence, and the rights of three roles on it; an empty text is no right.
struct Rights {
    name: &'static str,
    ingest: &'static str,
    worker: &'static str,
    dashboard: &'static str,
}

const fn rights(
    name: &'static str,
    ingest: &'static str,
    worker: &'static str,
    dashboard: &'static str,
) -> Rights {
    Rights { name, ingest, worker, dashboard }
}

const READ: &str = "select";
const ADD: &str = "select, insert";
const COUNT: &str = "select, insert, update";
const ALL: &str = "select, insert, update, delete";
const NONE: &str = "";

/// Every table, view and sequence of the schema, by name; ranges have the rights of `cdls`. A row that is locked, and a
/// table that is locked against writers, need the right to update.
static RELATIONS: &[Rights] = &[
    rights("_sqlx_migrations", READ, READ, NONE),
    rights("account", READ, READ, READ),
    rights("account_network", READ, NONE, NONE),
    rights("account_token", "select, update (last_used_at)", NONE, NONE),
    rights("attachment", NONE, ALL, NONE),
    rights("ban", ALL, NONE, NONE),
    rights("batch", ALL, NONE, NONE),
    rights("batch_line", "select, insert, delete", NONE, NONE),
    rights("broker_user", READ, NONE, NONE),
    rights("budget", READ, ALL, READ),
    rights("budget_day", READ, COUNT, READ),
    rights("campaign", COUNT, "select, update", NONE),
    rights("campaign_delta", ALL, ALL, NONE),
    rights("campaign_error", COUNT, COUNT, NONE),
    rights("campaign_error_delta", "select, update, delete", ALL, NONE),
    rights("campaign_label", ADD, ADD, NONE),
    rights("campaign_total", COUNT, COUNT, NONE),
    rights("cd_recipient", READ, ALL, READ),
    rights(
        "cd_v8_line",
        "select ({open columns})",
        // The worker refreshes tokens, and writes the new ones.
        "select, update (v8l_paused_until, v8l_pause_reason, v8l_wa_api_key, v8l_pat_expires_at, v8l_pat_version, \
         v8l_pat_refreshed_at, v8l_pat_next_try_at, v8l_pat_error)",
        "select ({open columns})",
    ),
    rights("cdls", COUNT, "select, update", READ),
    rights("cdls_id_seq", "usage, select", READ, NONE),
    rights("cdls_now", NONE, NONE, READ),
    rights("cdls_open", "select, insert, delete", ALL, NONE),
    rights("cdls_sending", READ, READ, NONE),
    rights("claim", READ, "select, insert, delete", NONE),
    rights("early_receipt", NONE, ALL, NONE),
    rights("echo", NONE, "select, insert, delete", NONE),
    rights("echo_unnamed", NONE, "select, insert, delete", NONE),
    rights("http_duplicate", ALL, NONE, NONE),
    rights("idempotency_key", ALL, NONE, NONE),
    rights("line_enforcement", READ, COUNT, READ),
    rights("meta_app", READ, READ, NONE),
    rights("resend", NONE, NONE, NONE),
    rights("settled", COUNT, ALL, NONE),
    rights("webhook_inbox", "insert", ALL, NONE),
    rights("work", ADD, ALL, NONE),
    rights("work_work_id_seq", NONE, READ, NONE),
    rights("worker_lease", "select, update", ALL, NONE),
];

/// Every function of the schema, and whether the processes may call it.
static FUNCTIONS: &[(&str, bool)] = &[
    ("cd_v8_line_token_replaced", false),
    ("cdls_drop_range", true),
    ("cdls_ensure_partitions", true),
    ("cdls_share_range", false),
];

/// How long a change of an owner waits for readers of its table; requests wait behind it.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '5s'";
/// How often the statements are tried while another program makes the same roles, and the rest between.
const TRIES: u32 = 20;
const REST: Duration = Duration::from_millis(100);

/// Return the statements, in their order.
pub async fn statements(pool: &Pool) -> Result<Vec<String>, StoreError> {
    let mut lent = pool.lend().await.map_err(failed)?;
    let described = pool.answer(described(&mut lent)).await;
    lent.give_back_after(&described);
    Ok(described.map_err(failed)?.statements())
}

/// Run the statements in one transaction; return them.
pub async fn make(pool: &Pool) -> Result<Vec<String>, StoreError> {
    for _ in 1..TRIES {
        match made(pool).await {
            Err(error) if is_concurrent(&error) => tokio::time::sleep(REST).await,
            done => return done.map_err(failed),
        }
    }
    made(pool).await.map_err(failed)
}

async fn made(pool: &Pool) -> Result<Vec<String>, Error> {
    let mut lent = pool.lend().await?;
    let made = pool.answer(run(&mut lent)).await?;
    lent.give_back();
    Ok(made)
}

async fn run(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    let mut transaction = connection.begin().await?;
    let statements = described(&mut transaction).await?.statements();
    for statement in &statements {
        sqlx::query(statement).persistent(false).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(statements)
}

/// Act as the role that owns the tables, if the user is a member of it: new tables belong to it too.
pub async fn act_as_owner(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query(
        "select set_config('role', r.rolname, false) from pg_class c join pg_roles r on r.oid = c.relowner
         where c.oid = to_regclass('cdls') and r.rolname = $1 and pg_has_role(r.oid, 'member')",
    )
    .bind(MIGRATE)
    .execute(connection)
    .await
    .map(drop)
    .map_err(failed)
}

/// Act as the user again.
pub async fn act_as_user(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("reset role").execute(connection).await.map(drop).map_err(failed)
}

/// Grant the rights again where they were granted before, if the user owns the tables: a migration may have made some.
pub async fn renew(connection: &mut PgConnection) -> Result<(), StoreError> {
    let are_granted: bool = sqlx::query_scalar(
        "select coalesce(bool_or(has_table_privilege(r.oid, 'cdls'::regclass, 'insert')), false)
         from pg_roles r join pg_class c on c.oid = to_regclass('cdls')
         where r.rolname = $1 and pg_has_role(c.relowner, 'usage')",
    )
    .bind(INGEST)
    .fetch_one(&mut *connection)
    .await
    .map_err(failed)?;
    if !are_granted {
        return Ok(());
    }
    for _ in 1..TRIES {
        match renewed(connection).await {
            Err(error) if is_concurrent(&error) => tokio::time::sleep(REST).await,
            done => return done.map_err(failed),
        }
    }
    renewed(connection).await.map_err(failed)
}

/// Take the rights away and grant them anew, in one transaction: no process that works meanwhile misses a right.
async fn renewed(connection: &mut PgConnection) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    let statements = described(&mut transaction).await?.of_rights();
    for statement in &statements {
        sqlx::query(statement).persistent(false).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

/// Whether another program made the same roles, or granted them the same, at this moment.
fn is_concurrent(error: &Error) -> bool {
    let Error::Database(database) = error else { return false };
    match database.code().as_deref() {
        Some("23505" | "42710" | "40001" | "40P01") => true,
        Some("XX000") => database.message().contains("concurrently"),
        _ => false,
    }
}

/// The facts of a database that the statements need; names are quoted where they have to be.
struct Description {
    database: String,
    schema: String,
    relations: Vec<Relation>,
    functions: Vec<Function>,
    /// The columns of a line that are no secret.
    open_columns: String,
    /// Users that own a table now, and are to keep their rights.
    owners: Vec<String>,
}

struct Relation {
    name: String,
    /// The word of statements about its owner.
    kind: &'static str,
    /// Whether its owner has to be changed; a sequence of a column follows its table.
    is_to_move: bool,
}

struct Function {
    name: String,
    arguments: String,
    is_to_move: bool,
}

const PLACE: &str = "
    select quote_ident(current_database()) as database, quote_ident(n.nspname) as schema,
           (select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a
            where a.attrelid = 'cd_v8_line'::regclass and a.attnum > 0 and not a.attisdropped
              and a.attname::text <> all ($1)) as open_columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = 'cdls'::regclass";

/// Relations $1 and the ranges; $2 is the role that is to own them.
const RELATIONS_FOUND: &str = "
    select c.relname::text as name, c.relkind::text as kind, pg_get_userbyid(c.relowner) <> $2 and not exists (
               select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and c.relkind = 'S'
                 and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')) as is_to_move
    from pg_class c
    where c.relnamespace = (select relnamespace from pg_class where oid = 'cdls'::regclass) and c.relkind in ('r', 'p', 'v', 'S')
      and (c.relname::text = any ($1) or c.oid in (select inhrelid from pg_inherits where inhparent = 'cdls'::regclass))
    order by c.relname <> 'cdls', length(c.relname::text), c.relname";

const FUNCTIONS_FOUND: &str = "
    select p.proname::text as name, oidvectortypes(p.proargtypes)::text as arguments,
           pg_get_userbyid(p.proowner) <> $2 as is_to_move
    from pg_proc p
    where p.pronamespace = (select relnamespace from pg_class where oid = 'cdls'::regclass) and p.proname::text = any ($1)
    order by p.proname";

const OWNERS: &str = "
    select distinct quote_ident(r.rolname) as owner from pg_class c join pg_roles r on r.oid = c.relowner
    where c.relnamespace = (select relnamespace from pg_class where oid = 'cdls'::regclass) and c.relname::text = any ($1)
      and r.rolname <> $2 and not r.rolsuper
      and not exists (select from pg_roles m where m.rolname = $2 and pg_has_role(r.oid, m.oid, 'member'))
    order by 1";

async fn described(connection: &mut PgConnection) -> Result<Description, Error> {
    let relations: Vec<&str> = RELATIONS.iter().map(|rights| rights.name).collect();
    let functions: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    let place = sqlx::query(PLACE).bind(&SECRET_COLUMNS[..]).fetch_one(&mut *connection).await?;
    let found =
        sqlx::query(RELATIONS_FOUND).bind(&relations).bind(MIGRATE).fetch_all(&mut *connection).await?;
    let of_functions =
        sqlx::query(FUNCTIONS_FOUND).bind(&functions).bind(MIGRATE).fetch_all(&mut *connection).await?;
    let owners = sqlx::query_scalar(OWNERS).bind(&relations).bind(MIGRATE).fetch_all(connection).await?;
    Ok(Description {
        database: place.try_get("database")?,
        schema: place.try_get("schema")?,
        open_columns: place.try_get("open_columns")?,
        owners,
        relations: found
            .iter()
            .map(|row| {
                let relkind: &str = row.try_get("kind")?;
                let kind = match relkind {
                    "S" => "sequence",
                    "v" => "view",
                    _ => "table",
                };
                Ok(Relation { name: row.try_get("name")?, kind, is_to_move: row.try_get("is_to_move")? })
            })
            .collect::<Result<_, Error>>()?,
        functions: of_functions
            .iter()
            .map(|row| {
                Ok(Function {
                    name: row.try_get("name")?,
                    arguments: row.try_get("arguments")?,
                    is_to_move: row.try_get("is_to_move")?,
                })
            })
            .collect::<Result<_, Error>>()?,
    })
}

impl Description {
    fn statements(&self) -> Vec<String> {
        let mut statements = vec![LOCK_TIMEOUT.to_owned()];
        statements.extend(ROLES.iter().map(|role| {
            // Another program may make it between the look and the statement.
            format!(
                "do $$ begin if not exists (select from pg_roles where rolname = '{role}') then create role {role} nologin; \
                 end if; exception when duplicate_object or unique_violation then null; end $$"
            )
        }));
        let (all, schema) = (ROLES.join(", "), &self.schema);
        statements.push(format!("grant connect on database {} to {all}", self.database));
        statements.push(format!("grant usage on schema {schema} to {all}"));
        statements.push(format!("grant create on schema {schema} to {MIGRATE}"));
        // Functions with the owner's rights look names up in this schema: an SQL operator that another user made
        // there would run with these rights. PostgreSQL 14 and before let every user make objects there.
        statements.push(format!("revoke create on schema {schema} from public"));
        statements.extend(self.owners.iter().map(|owner| format!("grant {MIGRATE} to {owner}")));
        for Relation { name, kind, .. } in self.relations.iter().filter(|relation| relation.is_to_move) {
            statements.push(format!("alter {kind} {schema}.{name} owner to {MIGRATE}"));
        }
        for Function { name, arguments, .. } in self.functions.iter().filter(|function| function.is_to_move) {
            statements.push(format!("alter function {schema}.{name}({arguments}) owner to {MIGRATE}"));
        }
        statements.extend(self.of_rights());
        statements
    }

    /// Return the statements that grant rights, and take away others that were granted before.
    fn of_rights(&self) -> Vec<String> {
        let schema = &self.schema;
        let mut statements = Vec::new();
        for Relation { name, kind, .. } in &self.relations {
            let of = |wanted: &str| RELATIONS.iter().find(|rights| rights.name == wanted);
            // A relation that is not listed is a range.
            let listed = of(name).or_else(|| of("cdls"));
            let Some(Rights { ingest, worker, dashboard, .. }) = listed else { continue };
            let kind = if *kind == "sequence" { "sequence" } else { "table" };
            let on = format!("on {kind} {schema}.{name}");
            statements.push(format!("revoke all {on} from {INGEST}, {WORKER}, {DASHBOARD}"));
            for (role, granted) in [(INGEST, ingest), (WORKER, worker), (DASHBOARD, dashboard)] {
                if !granted.is_empty() {
                    let granted = granted.replace(OPEN_COLUMNS, &self.open_columns);
                    statements.push(format!("grant {granted} {on} to {role}"));
                }
            }
        }
        for Function { name, arguments, .. } in &self.functions {
            if FUNCTIONS.iter().any(|(listed, may_call)| *may_call && listed == name) {
                let on = format!("on function {schema}.{name}({arguments})");
                statements.push(format!("grant execute {on} to {INGEST}, {WORKER}"));
            }
        }
        statements
    }
}

#[cfg(test)]
mod tests;
