-- Rights by role (docs/decisions, 50): which rows a process reads and writes is granted by `migrate --roles`; here is what
-- the grants need. The name of a role is in src/store/postgres/roles.rs alone.

-- Whether a line has a token that is not blank: a role without the right to read the token may read this. The characters
-- are those of `text::is_unseen`.
alter table cd_v8_line add column v8l_has_token boolean not null generated always as (
    btrim(coalesce(v8l_wa_api_key, ''),
        E'\u0009\u000a\u000b\u000c\u000d\u0020\u0085\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e'
        '\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u200e\u200f\u2028'
        '\u2029\u202a\u202b\u202c\u202d\u202e\u202f\u205f\u2060\u2061\u2062\u2063\u2064\u2065\u2066\u2067\u2068'
        '\u2069\u206a\u206b\u206c\u206d\u206e\u206f\u2800\u3000\u3164\ufeff\uffa0') <> '') stored;

-- Gives a range the rights that were granted on the log.
create function cdls_share_range(range_table regclass) returns void language plpgsql as $$
declare
    granted record;
begin
    for granted in
        select a.grantee, string_agg(a.privilege_type, ', ') as privileges
        from pg_class c cross join lateral aclexplode(c.relacl) as a
        where c.oid = 'cdls'::regclass and a.grantee <> c.relowner group by a.grantee
    loop
        execute format('grant %s on table %s to %s', granted.privileges, range_table,
            case when granted.grantee = 0 then 'public' else granted.grantee::regrole::text end);
    end loop;
end $$;

-- As before, and with the rights of the tables' owner: the processes need none to make tables.
create or replace function cdls_ensure_partitions() returns integer language plpgsql security definer
set lock_timeout = '2s' set search_path from current as $$
declare
    range_size constant bigint := 10000000;
    reached bigint;
    range_no bigint;
    made integer := 0;
begin
    select last_value into reached from cdls_id_seq;
    for range_no in reached / range_size .. (reached + range_size / 5) / range_size loop
        continue when to_regclass('cdls_' || range_no) is not null;
        perform pg_advisory_xact_lock(hashtext('cdls_ensure_partitions'));
        continue when to_regclass('cdls_' || range_no) is not null;
        -- A row is updated once, and its new version is longer. A batch updates whole pages in one transaction, so that
        -- nothing can be removed meanwhile: with 45 all updates find room on their pages, with 50 five in six
        -- (bench/shapes). Vacuum passes by absolute numbers: a share of ten million is too many.
        execute format(
            'create table %I (like cdls including all excluding indexes) with (fillfactor = 45, '
            'autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500000, '
            'autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 1000000, '
            'autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 250000)',
            'cdls_' || range_no);
        -- Before rows come: statements name the range.
        perform cdls_share_range(to_regclass('cdls_' || range_no));
        execute format(
            'alter table cdls attach partition %I for values from (%s) to (%s)',
            'cdls_' || range_no, range_no * range_size, (range_no + 1) * range_size);
        made := made + 1;
    end loop;
    return made;
end $$;

-- Drops a range for a role that does not own it, and returns whether it did: only a range of the log below the one that
-- receives rows, whose rows have all ended and are older than $2 milliseconds, an hour at least. The log is locked for a
-- moment; the owner detaches a range first, which locks nobody out, and which no function may do.
create function cdls_drop_range(range_no bigint, keep_ms bigint) returns boolean language plpgsql security definer
set lock_timeout = '200ms' set search_path from current as $$
declare
    range_size constant bigint := 10000000;
    first_no constant bigint := range_no * range_size;
    last_no constant bigint := range_no * range_size + range_size - 1;
    range_table constant regclass := to_regclass('cdls_' || range_no);
    is_young boolean;
begin
    if range_table is null
       or not exists (select from pg_inherits i where i.inhparent = 'cdls'::regclass and i.inhrelid = range_table)
       or last_no >= (select last_value from cdls_id_seq)
       or exists (select from cdls_open o where o.cdls_id between first_no and last_no)
       or exists (select from work w where w.first_id <= last_no and w.ids[cardinality(w.ids)] >= first_no)
       or exists (select from claim c where c.ids[1] <= last_no and c.ids[cardinality(c.ids)] >= first_no
                  and exists (select from worker_lease l where l.worker = c.worker and l.expires_at > now()))
    then
        return false;
    end if;
    execute format(
        'select coalesce((select c.created_at from %s c order by c.cdls_id desc limit 1)
                         >= now() - $1 * interval ''1 millisecond'', false)', range_table)
        into is_young using greatest(keep_ms, 3600000);
    if is_young then
        return false;
    end if;
    execute format('drop table %s', range_table);
    return true;
end $$;
revoke execute on function cdls_drop_range(bigint, bigint) from public;
revoke execute on function cdls_share_range(regclass) from public;

-- A table of the session's own would stand before the schema's, for a function with the owner's rights: last, it does not.
do $$ begin
    execute format('alter function cdls_ensure_partitions() set search_path = %I, pg_temp', current_schema());
    execute format('alter function cdls_drop_range(bigint, bigint) set search_path = %I, pg_temp', current_schema());
end $$;
