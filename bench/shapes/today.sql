-- Shape "today": the log is the queue. Schema and statements of commit a18997e, migrations 0001 to 0009 and the modules
-- accept and record of store/postgres; the statement of the recorder is taken apart into its two halves.

create table campaign (
    cdcs_id    bigint not null,
    cp_id      text collate "C" not null,
    state      text collate "C" not null check (state in ('running', 'paused', 'cancelled')),
    changed_at timestamptz not null default now(),
    primary key (cdcs_id, cp_id)
);

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
    priority           text collate "C" not null,
    status             text collate "C" not null default 'PENDING',
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
    partition_no       smallint not null generated always as (v8l_id % 64) stored,
    media              boolean not null generated always as (mtype <> 'text') stored,
    campaign           text collate "C" not null generated always as (coalesce(cp_id, '')) stored,
    fence              integer not null default 0,   -- raised by each claim; only its holder may write the result
    tries              integer not null default 0,   -- retried answers about the message itself; dispatch.max_attempts bounds it
    worker             text collate "C",             -- who holds the claim
    call_deadline      timestamptz,                  -- nobody else settles a claimed row before this
    waiter             text collate "C",             -- where the outcome is awaited: reply queue and ticket
    primary key (cdls_id)
) partition by range (cdls_id);

-- Rows that may be claimed now, in the order in which a line serves them. Scheduled and deferred rows are never
-- walked over.
create index cdls_ready on cdls (v8l_id, priority, media, campaign, cdls_id)
    where status in ('PENDING', 'RETRY') and next_at is null;

-- Rows somebody must look at when a time comes: schedules, retries, claims.
create index cdls_due on cdls (partition_no, (coalesce(call_deadline, next_at)))
    where status in ('PENDING', 'RETRY', 'SENDING') and (next_at is not null or call_deadline is not null);

alter table cdls add column crashes smallint not null default 0;
create index cdls_unknown on cdls (cdls_id, sent_at) where status = 'UNKNOWN';
create index cdls_account on cdls (cdcs_id, v8l_id, status, cdls_id);
create index cdls_campaign on cdls (cdcs_id, cp_id, v8l_id, media, status, cdls_id) where cp_id is not null;
create index cdls_msg_id on cdls (cdcs_id, msg_id, cdls_id) where msg_id is not null;
create index cdls_dest on cdls (cdcs_id, dest, cdls_id);
create table cdls_0 partition of cdls for values from (0) to (10000000) with (fillfactor = :fillfactor);
create table cdls_1 partition of cdls for values from (10000000) to (20000000) with (fillfactor = :fillfactor);

create table partition_lease (
    partition_no smallint primary key,
    owner        text collate "C",
    epoch        bigint not null default 0,
    expires_at   timestamptz not null default now()
);
insert into partition_lease (partition_no, owner, expires_at) select n, 'worker-1', 'infinity' from generate_series(0, 63) n;
create table cd_v8_line (v8l_id bigint primary key, cdcs_id bigint not null);
insert into cd_v8_line select n, (n - 1) / 20 + 1 from generate_series(1, 2000) n;

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
        returning cdls_id)
    select array_agg(cdls_id) into ids from logged;
    return null;
end $$;

create function claim(bigint, bigint[], integer[], bigint[]) returns void language plpgsql as $$
declare
    ids bigint[];
begin
    with locked as materialized (
        select w.* from (select * from unnest($2, $3, $4) as u(id, fence, deadline_ms) order by id) as w
        cross join lateral (
            select from cdls c
            where c.cdls_id = w.id and c.fence = w.fence and c.status in ('PENDING', 'RETRY')
              and coalesce(c.next_at, 'infinity') = 'infinity' and c.expires_at > now()
              and c.partition_no = any (array(select l.partition_no from partition_lease l where l.owner = 'worker-1'
                                              and l.expires_at > now()))
              and (c.cp_id is null or not exists (select from campaign p where p.cdcs_id = c.cdcs_id
                   and p.cp_id = c.cp_id and p.state <> 'running'))
            for update skip locked) as c),
    claimed as (
        update cdls c set
            status = 'SENDING', fence = c.fence + 1, attempts = c.attempts + 1, sent_at = now(), worker = 'worker-1',
            call_deadline = now() + w.deadline_ms * interval '1 millisecond'
        from locked w
        where c.cdls_id = w.id
        returning c.cdls_id)
    select array_agg(cdls_id) into ids from claimed;
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
            status = w.status,
            status_code = coalesce(w.status_code, c.status_code),
            message_id = coalesce(w.message_id, c.message_id),
            error_code = case when w.writes_error then w.error_code else c.error_code end,
            error_subcode = case when w.writes_error then w.error_subcode else c.error_subcode end,
            error_message = case when w.writes_error then w.error_message else c.error_message end,
            fbtrace_id = case when w.writes_error then w.fbtrace_id else c.fbtrace_id end,
            error_kind = coalesce(w.error_kind, c.error_kind),
            attempts = c.attempts + w.add_attempts,
            tries = c.tries + w.add_tries,
            ambiguous_attempts = c.ambiguous_attempts + w.add_ambiguous,
            crashes = c.crashes + w.add_crashes,
            next_at = now() + w.next_ms * interval '1 millisecond',
            done_at = case when w.done then now() else c.done_at end,
            call_deadline = null,
            worker = null
        from (select u.*, case when u.status = 'OK' then (select o.status from cdls o where o.cdls_id = u.id) end as was
              from unnest($1, $2, $3, $4, $5, $6, $8, $12, $12, $13, $13, $13, $11, $11, $11, $14, $9, $11)
                as u(id, fence, leaves, status, status_code, message_id, writes_error, error_code, error_subcode, error_kind,
                     error_message, fbtrace_id, add_attempts, add_tries, add_ambiguous, next_ms, done, add_crashes)
              order by id) as w
        where c.cdls_id = w.id and c.fence = w.fence and strpos(w.leaves, c.status) > 0
          and (w.error_kind is distinct from 'line' or not exists (
              select from cd_v8_line l where l.v8l_id = c.v8l_id and l.cdcs_id = c.cdcs_id))
        returning c.cdls_id, coalesce(w.was <> 'SENDING', false) as late)
    select array_agg(cdls_id) into ids from changed;
end $$;
