-- Shape 3: one row of `work` for each commit and flow (line, lane, medium, campaign), inserted in the statement that logs the
-- messages and deleted with a later outcome when all of them have ended; a claim is one row a batch.

create table work (
    work_id      bigint generated always as identity primary key,
    partition_no smallint not null,
    v8l_id       bigint not null,
    lane         text collate "C" not null,
    media        boolean not null,
    campaign     text collate "C" not null,
    ids          bigint[] not null
) with (fillfactor = :fillfactor);
create index work_flow on work (partition_no, v8l_id, lane, media, campaign, work_id);

-- Rows claimed in one commit. Deleted with a later outcome.
create table claim (
    worker   text collate "C" not null,
    claim_no bigint not null,
    ids      bigint[] not null,
    fences   integer[] not null,
    deadline timestamptz not null,
    primary key (worker, claim_no)
) with (fillfactor = :fillfactor);

create function accept(
    bigint[], bigint[], text[], text[], text[], text[], text[], text[], text[], text[], timestamptz[], bigint[], text[], bigint[])
returns bigint[] language plpgsql as $$
declare
    ids bigint[];
    made bigint[];
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
        returning cdls_id, v8l_id, priority, mtype, cp_id),
    queued as (
        insert into work (partition_no, v8l_id, lane, media, campaign, ids)
        select l.partition_no, l.v8l_id, l.priority, l.media, l.campaign, array_agg(l.cdls_id)
        from (select cdls_id, v8l_id % 64 as partition_no, v8l_id, priority, mtype <> 'text' as media,
                     coalesce(cp_id, '') as campaign
              from logged order by partition_no, v8l_id, priority, media, campaign, cdls_id) as l
        group by partition_no, v8l_id, priority, media, campaign
        returning work_id)
    select (select array_agg(cdls_id) from logged), array[min(work_id), max(work_id)] into ids, made from queued;
    return made;
end $$;

-- Reads the lease and, without a lock, each row of the log; writes one row.
create function claim(bigint, bigint[], integer[], bigint[]) returns void language plpgsql as $$
declare
    claimed bigint[];
begin
    with lease as materialized (
        select partitions from worker_lease where worker = 'worker-1' and expires_at > now() for share)
    insert into claim (worker, claim_no, ids, fences, deadline)
    select 'worker-1', $1, array_agg(w.id), array_agg(w.fence + 1), now() + max(w.deadline_ms) * interval '1 millisecond'
    from lease cross join unnest($2, $3, $4) as w(id, fence, deadline_ms)
    cross join lateral (
        select from cdls c
        where c.cdls_id = w.id and c.fence = w.fence and c.status in ('PENDING', 'RETRY') and c.expires_at > now()
          and c.v8l_id % 64 = any (lease.partitions)
          and (c.cp_id is null or not exists (select from campaign p where p.cdcs_id = c.cdcs_id
               and p.cp_id = c.cp_id and p.state <> 'running'))) as c
    having count(*) > 0
    returning ids into claimed;
end $$;

create function outcome(
    bigint[], integer[], text[], text[], integer[], text[], timestamptz[], boolean[], boolean[], integer[], integer[], integer[],
    text[], bigint[], bigint[], bigint[])
returns void language plpgsql as $$
declare
    ids bigint[];
begin
    with changed as (
        update cdls c set
            status = w.status, status_code = w.status_code, message_id = w.message_id, attempts = c.attempts + w.add_attempts,
            fence = w.fence, sent_at = w.sent_at, done_at = now()
        from (select * from unnest($1, $2, $4, $5, $6, $7, $10)
                as u(id, fence, status, status_code, message_id, sent_at, add_attempts) order by id) as w
        where c.cdls_id = w.id and c.fence = w.fence - 1 and c.status in ('PENDING', 'RETRY')
        returning c.cdls_id),
    ended as (
        delete from work where work_id = any ($16)),
    closed as (
        -- Not `claim_no = any (…)`: as a filter it reads all dead claims of the worker, which an old snapshot keeps.
        delete from claim using unnest($15) as n where worker = 'worker-1' and claim_no = n)
    select array_agg(cdls_id) into ids from changed;
end $$;
