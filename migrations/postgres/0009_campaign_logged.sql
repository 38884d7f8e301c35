-- How many rows of each campaign were logged, so that a million that wait need not be counted one by one: where they were
-- logged a moment ago, that takes seconds. Kept by a trigger, in the transaction that logs them, whoever does.

create table campaign_logged (
    cdcs_id  bigint not null,
    cp_id    text collate "C" not null,
    v8l_id   bigint not null,
    media    boolean not null,
    id_range integer not null,   -- the partition of cdls; rows of one that was dropped count no longer
    slot     smallint not null,  -- sessions that log at the same time do not wait for each other
    rows     bigint not null,
    primary key (cdcs_id, cp_id, v8l_id, media, id_range, slot)
) with (fillfactor = 50);

-- Sorted, so that two sessions with the same slot cannot deadlock.
create function cdls_count_logged() returns trigger language plpgsql as $$
begin
    insert into campaign_logged as l (cdcs_id, cp_id, v8l_id, media, id_range, slot, rows)
    select n.cdcs_id, n.cp_id, n.v8l_id, n.media, n.cdls_id / 10000000, pg_backend_pid() % 64, count(*)
    from logged n where n.cp_id is not null
    group by n.cdcs_id, n.cp_id, n.v8l_id, n.media, n.cdls_id / 10000000
    order by 1, 2, 3, 4, 5
    on conflict (cdcs_id, cp_id, v8l_id, media, id_range, slot) do update set rows = l.rows + excluded.rows;
    return null;
end $$;

create trigger cdls_count_logged after insert on cdls
    referencing new table as logged for each statement execute function cdls_count_logged();

insert into campaign_logged
select cdcs_id, cp_id, v8l_id, media, cdls_id / 10000000, 0, count(*) from cdls
where cp_id is not null group by cdcs_id, cp_id, v8l_id, media, cdls_id / 10000000;
