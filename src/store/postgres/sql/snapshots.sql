-- The sessions that keep this database from forgetting old versions of rows: for how long transactions have
-- been open, and the oldest transaction number that replication holds, whose time is not known.
select (select max(extract(epoch from now() - t.since) * 1000)::bigint from (
            select a.xact_start as since from pg_stat_activity a
            where a.pid <> pg_backend_pid() and a.datname = current_database() and a.xact_start is not null
              and (a.backend_xmin is not null or a.backend_xid is not null) and a.backend_type <> 'autovacuum worker'
            union all
            select p.prepared from pg_prepared_xacts p where p.database = current_database()) as t) as open_ms,
       (select r.xmin::text from (
            select a.backend_xmin as xmin from pg_stat_activity a where a.xact_start is null and a.backend_xmin is not null
            union all
            select s.xmin from pg_replication_slots s where s.xmin is not null) as r
        order by age(r.xmin) desc limit 1) as held_xmin
