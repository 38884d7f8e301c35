-- The next range of ids is made beside `cdls` and attached to it: made as a partition, it would wait for everybody who reads
-- the log, and everybody else behind it. Attaching waits for no reader and no writer ("ALTER TABLE … ATTACH PARTITION").
create or replace function cdls_ensure_partitions() returns integer language plpgsql set lock_timeout = '2s' as $$
declare
    range_size constant bigint := 10000000;
    reached bigint;
    first_id bigint;
    made integer := 0;
begin
    perform pg_advisory_xact_lock(hashtext('cdls_ensure_partitions'));
    select last_value into reached from cdls_id_seq;
    for n in 0..1 loop
        first_id := (reached / range_size + n) * range_size;
        if to_regclass('cdls_' || (first_id / range_size)) is null then
            -- Hot rows change twice: room on the page keeps the new versions beside the old.
            execute format(
                'create table %I (like cdls including all excluding indexes) with (fillfactor = 70, '
                'autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, '
                'autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)',
                'cdls_' || (first_id / range_size));
            execute format(
                'alter table cdls attach partition %I for values from (%s) to (%s)',
                'cdls_' || (first_id / range_size), first_id, first_id + range_size);
            made := made + 1;
        end if;
    end loop;
    return made;
end $$;
