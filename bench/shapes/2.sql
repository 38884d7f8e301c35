-- Shape 2: as 1, but a claim is one row a batch; the row of `cdls_open` is only inserted and deleted.

create table cdls_open (
    cdls_id      bigint primary key,
    partition_no smallint not null,
    v8l_id       bigint not null,
    lane         text collate "C" not null,
    media        boolean not null,
    campaign     text collate "C" not null,
    due_at       timestamptz,
    expires_at   timestamptz not null
) with (fillfactor = :fillfactor);
create index cdls_open_flow on cdls_open (v8l_id, lane, media, campaign, cdls_id) where due_at is null;
create index cdls_open_due on cdls_open (partition_no, due_at) where due_at is not null;

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
    gone as (
        delete from cdls_open where cdls_id = any ($1)),
    closed as (
        -- Not `claim_no = any (…)`: as a filter it reads all dead claims of the worker, which an old snapshot keeps.
        delete from claim using unnest($15) as n where worker = 'worker-1' and claim_no = n)
    select array_agg(cdls_id) into ids from changed;
end $$;
