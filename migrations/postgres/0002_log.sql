-- The log: one row a message, inserted once with everything and updated when its state changes. Columns that dashboards
-- read stand in the contract (docs/contract.md, "SQL: for dashboards"), in its order; the others are ours.
--
-- The ordinary message is one insert and one update, and the update is a heap-only tuple (PostgreSQL, "Heap-Only Tuples"):
-- no index names a column whose value the way from PENDING to OK changes, predicates included. The columns that change
-- stand behind the texts, so that the log of changes (WAL) holds neither.

create sequence cdls_id_seq as bigint;

create table cdls (
    cdls_id            bigint not null default nextval('cdls_id_seq'),
    cdcs_id            bigint not null,
    v8l_id             bigint not null,
    class              text collate "C" not null,
    dest               text collate "C" not null,
    mtype              text collate "C" not null,
    mdata              text not null,
    mcaption           text,
    msg_id             text collate "C",
    cp_id              text collate "C",
    priority           text collate "C" not null check (priority in ('high', 'bulk')),
    status             text collate "C" not null default 'PENDING'
        check (status in ('PENDING', 'RETRY', 'OK', 'ERROR', 'UNKNOWN', 'CANCELLED')),
    status_code        integer not null default 0,
    message_id         text collate "C",
    error_code         integer,
    error_subcode      integer,
    error_kind         text collate "C",
    error_message      text,
    fbtrace_id         text,
    attempts           integer not null default 0,
    ambiguous_attempts integer not null default 0,
    next_at            timestamptz,
    expires_at         timestamptz not null,
    created_at         timestamptz not null default now(),
    sent_at            timestamptz,
    done_at            timestamptz,
    delivered_at       timestamptz,
    read_at            timestamptz,
    -- Ours from here on.
    fence              integer not null default 0,   -- the last claim whose end is written; the next claim has one more
    tries              integer not null default 0,   -- retried answers about the message itself; dispatch.max_attempts bounds it
    crashes            integer not null default 0,   -- workers that died inside a call of this row; three end it as `poison`
    waiter             text collate "C",             -- where the outcome is awaited: reply queue and ticket
    commit_mark        bigint,                       -- of the first row of a commit: by which it is found if its answer is lost
    -- The status of a row that left the ordinary way; NULL while it is PENDING and when it is OK.
    exception          text collate "C" generated always as
        (case when status in ('PENDING', 'OK') then null else status end) stored,
    primary key (cdls_id)
) partition by range (cdls_id);

-- Every index begins with the account and ends with cdls_id, so that the newest rows of each group are read from its end.
create index cdls_account on cdls (cdcs_id, v8l_id, cdls_id);
create index cdls_dest on cdls (cdcs_id, dest, cdls_id);
create index cdls_campaign on cdls (cdcs_id, cp_id, cdls_id) where cp_id is not null;
create index cdls_msg_id on cdls (cdcs_id, msg_id, cdls_id) where msg_id is not null;
create index cdls_exception on cdls (cdcs_id, exception, cdls_id) where exception is not null;
create index cdls_campaign_exception on cdls (cdcs_id, cp_id, exception, cdls_id)
    where cp_id is not null and exception is not null;

-- Makes the ranges that ids will soon need, and returns how many were made. Each holds ten million ids; the next one is
-- made when a fifth of the last is left. It is made beside `cdls` and attached to it: made as a partition, it would wait for
-- everybody who reads the log. Attaching waits for no reader and no writer ("ALTER TABLE … ATTACH PARTITION").
-- `migrate` calls it, and the running processes do every few seconds.
create function cdls_ensure_partitions() returns integer language plpgsql
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
        execute format(
            'alter table cdls attach partition %I for values from (%s) to (%s)',
            'cdls_' || range_no, range_no * range_size, (range_no + 1) * range_size);
        made := made + 1;
    end loop;
    return made;
end $$;
select cdls_ensure_partitions();
