-- The queue, beside the log (docs/decisions, 32). Each row of the log that has not ended stands in
-- at least one of three tables: `work` (it waits for its turn), `cdls_open` (it waits for a time or an operator), `claim` (a
-- worker calls Graph for it). These tables are ours and may change; the view `cdls_now` shows what they hold.

-- Messages of one commit that are served in turn together: one line, lane, medium and campaign. Inserted in the commit that
-- logs them, or makes them ready again; deleted when all of them have ended or moved to `cdls_open`.
create table work (
    work_id      bigint generated always as identity primary key,
    partition_no smallint not null,
    cdcs_id      bigint not null,
    v8l_id       bigint not null,
    priority     text collate "C" not null,
    media        boolean not null,
    campaign     text collate "C" not null,          -- empty: none
    first_id     bigint not null,
    ids          bigint[] not null,                  -- ascending
    again        boolean not null default false,     -- rows that were scheduled or tried before: RETRY is ready, too
    expires_at   timestamptz not null                -- no row of it expires earlier
);
create index work_flow on work (partition_no, v8l_id, priority, media, campaign, first_id, work_id);
create index work_expiry on work (partition_no, expires_at);
create index work_campaign on work (cdcs_id, campaign, work_id) where campaign <> '';

-- Rows that left the ordinary way: scheduled, to be tried again, or of unknown outcome.
create table cdls_open (
    cdls_id      bigint primary key,
    kind         text collate "C" not null check (kind in ('schedule', 'retry', 'unknown')),
    partition_no smallint not null,
    cdcs_id      bigint not null,
    v8l_id       bigint not null,
    priority     text collate "C" not null,
    media        boolean not null,
    campaign     text collate "C" not null,
    dest         text collate "C" not null,
    due_at       timestamptz,                        -- NULL: an operator settles it
    since        timestamptz not null default now()
);
create index cdls_open_due on cdls_open (partition_no, due_at, cdls_id) where due_at is not null;
create index cdls_open_retry on cdls_open (partition_no, due_at) where kind = 'retry';
create index cdls_open_schedule on cdls_open (cdcs_id, cdls_id) where kind = 'schedule';
create index cdls_open_unknown on cdls_open (cdls_id) where kind = 'unknown';
create index cdls_open_campaign on cdls_open (cdcs_id, campaign, cdls_id) where campaign <> '' and kind <> 'unknown';

-- Rows a worker has claimed in one commit. A claim of a row is open while the row's fence in the log is below the claim's.
-- Deleted when the ends of all its calls are written.
create table claim (
    worker      text collate "C" not null,
    claim_no    bigint not null,                     -- ascending for each worker
    ids         bigint[] not null,
    fences      integer[] not null,                  -- the fence each row has when the end of its call is written
    partitions  smallint[] not null,
    deadline_ms bigint[] not null,                   -- after `made_at`: nobody else settles the row before
    made_at     timestamptz not null default now(),
    primary key (worker, claim_no)
);
create view cdls_sending as
    select u.cdls_id, u.fence, u.partition_no, c.worker, c.made_at,
           c.made_at + u.deadline_ms * interval '1 millisecond' as call_deadline
    from claim c cross join lateral unnest(c.ids, c.fences, c.partitions, c.deadline_ms)
        as u(cdls_id, fence, partition_no, deadline_ms);

-- Workers that are alive, and the partitions of the lines each of them owns. A claim reads its worker's row `for share`:
-- whoever takes partitions over removes that row first, and so waits for claims that are being committed.
create table worker_lease (
    worker      text collate "C" primary key,
    partitions  smallint[] not null default '{}',
    expires_at  timestamptz not null,
    unable      boolean not null default false       -- to serve lines: its calls do not reach Graph, or its scans fail
) with (fillfactor = 50);

-- Rows that an operator settled and nobody was told of yet: a process that sends tells producers and listeners.
create table settled (
    cdls_id bigint primary key,
    status  text collate "C" not null
);

-- Rows that were sent again, and the copy that was logged for each. A row is sent again once; after that its copy is.
create table resend (
    cdls_id    bigint primary key,
    copy_id    bigint not null,
    created_at timestamptz not null default now()
);
