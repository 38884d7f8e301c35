-- Shape 1: a row of `cdls_open` for each message, inserted with the log row, updated by its claim (heap-only: no index names a
-- column that a claim changes), deleted with its outcome. A claim neither reads nor writes the log. The `coalesce` in it keeps
-- the planner from the index of flows, as in shape "today".

create table cdls_open (
    cdls_id      bigint primary key,
    partition_no smallint not null,
    v8l_id       bigint not null,
    lane         text collate "C" not null,
    media        boolean not null,
    campaign     text collate "C" not null,
    due_at       timestamptz,
    expires_at   timestamptz not null,
    fence        integer not null default 0,
    worker       text collate "C",
    sent_at      timestamptz,
    call_deadline timestamptz
) with (fillfactor = :fillfactor);
create index cdls_open_flow on cdls_open (v8l_id, lane, media, campaign, cdls_id) where due_at is null;
create index cdls_open_due on cdls_open (partition_no, due_at) where due_at is not null;

create function accept(
    bigint[], bigint[], text[], text[], text[], text[], text[], text[], text[], text[], timestamptz[], bigint[], text[], bigint[])
returns bigint[] language plpgsql as $$
declare
    ids bigint[];
begin
    with logged as (
        insert into cdls (cdls_id, cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, next_at,
                          expires_at, waiter)
        select coalesce(s.cdls_id, nextval('cdls_id_seq')),
               s.cdcs_id, s.v8l_id, s.class, s.dest, s.mtype, s.mdata, s.mcaption, s.msg_id, s.cp_id, s.priority,
               case when s.send_at > now() then s.send_at end,
               coalesce(s.send_at, now()) + s.valid_ms * interval '1 millisecond', s.waiter
        from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) with ordinality
             as s(cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, send_at, valid_ms, waiter, cdls_id,
                  place)
        order by s.place
        returning cdls_id, v8l_id, priority, mtype, cp_id, next_at, expires_at),
    queued as (
        insert into cdls_open (cdls_id, partition_no, v8l_id, lane, media, campaign, due_at, expires_at)
        select cdls_id, v8l_id % 64, v8l_id, priority, mtype <> 'text', coalesce(cp_id, ''), next_at, expires_at from logged)
    select array_agg(cdls_id) into ids from logged;
    return null;
end $$;

create function claim(bigint, bigint[], integer[], bigint[]) returns void language plpgsql as $$
declare
    claimed bigint[];
begin
    with lease as materialized (
        select partitions from worker_lease where worker = 'worker-1' and expires_at > now() for share),
    claimed as (
        update cdls_open o set
            fence = o.fence + 1, worker = 'worker-1', sent_at = now(),
            call_deadline = now() + w.deadline_ms * interval '1 millisecond'
        from lease cross join (select * from unnest($2, $3, $4) as u(id, fence, deadline_ms) order by id) as w
        where o.cdls_id = w.id and o.fence = w.fence and o.worker is null
          and coalesce(o.due_at, 'infinity') = 'infinity' and o.expires_at > now()
          and o.partition_no = any (lease.partitions)
          and (o.campaign = '' or not exists (select from cdls c join campaign p on p.cdcs_id = c.cdcs_id and p.cp_id = o.campaign
               where c.cdls_id = o.cdls_id and p.state <> 'running'))
        returning o.cdls_id)
    select array_agg(cdls_id) into claimed from claimed;
end $$;

create function outcome(
    bigint[], integer[], text[], text[], integer[], text[], timestamptz[], boolean[], boolean[], integer[], integer[], integer[],
    text[], bigint[], bigint[], bigint[])
returns void language plpgsql as $$
declare
    ids bigint[];
begin
    with ended as (
        delete from cdls_open o
        using (select * from unnest($1, $2, $4, $5, $6, $7, $10)
                as u(id, fence, status, status_code, message_id, sent_at, add_attempts) order by id) as w
        where o.cdls_id = w.id and o.fence = w.fence and o.worker = 'worker-1'
        returning w.*),
    changed as (
        update cdls c set
            status = w.status, status_code = w.status_code, message_id = w.message_id, attempts = c.attempts + w.add_attempts,
            fence = w.fence, sent_at = w.sent_at, done_at = now()
        from ended w
        where c.cdls_id = w.id
        returning c.cdls_id)
    select array_agg(cdls_id) into ids from changed;
end $$;
