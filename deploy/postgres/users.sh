#!/bin/bash
# The users of the processes, for a new database: PostgreSQL's image runs this once, as its administrator, before it listens.
# None of them is a superuser, makes roles or makes databases. `migrate --roles` then makes the tables and grants the rights.
#
# SECRETS names the folder of the passwords: tests/it/deploy.rs runs this on another server.
set -euo pipefail
export SECRETS=${SECRETS:-/run/secrets} DATABASE=${POSTGRES_DB:-meta_dispatch}

# psql reads the passwords itself: as arguments, every process of the container could see them.
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname "$DATABASE" << 'SQL'
\set migrate_password `cat "$SECRETS/migrate-database-password"`
\set ingest_password `cat "$SECRETS/ingest-database-password"`
\set worker_password `cat "$SECRETS/worker-database-password"`
\set database `echo "$DATABASE"`

-- The server may have the groups from another database.
do $$
declare
    name text;
begin
    foreach name in array
        array['meta_dispatch_ingest', 'meta_dispatch_worker', 'meta_dispatch_migrate', 'meta_dispatch_dashboard']
    loop
        begin
            execute format('create role %I nologin', name);
        exception when duplicate_object or unique_violation then
            null;
        end;
    end loop;
end $$;

create role dispatch_migrate login password :'migrate_password' in role meta_dispatch_migrate;
create role dispatch_ingest login password :'ingest_password' in role meta_dispatch_ingest;
create role dispatch_worker login password :'worker_password' in role meta_dispatch_worker;

-- The owner of the database may grant the right to connect, and make tables in its schema `public`.
alter database :"database" owner to meta_dispatch_migrate;
revoke all on database :"database" from public;
SQL
