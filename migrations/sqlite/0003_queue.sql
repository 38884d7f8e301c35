-- The queue, beside the log (docs/decisions, 32). Each row of the log that has not ended stands in
-- at least one of three tables: `work` (it waits for its turn), `cdls_open` (it waits for a time or an operator), `claim` (a
-- worker calls Graph for it). These tables are ours and may change; the view `cdls_now` shows what they hold.

-- Messages of one commit that are served in turn together: one line, lane, medium and campaign. Inserted in the commit that
-- logs them, or makes them ready again; deleted when all of them have ended or moved to `cdls_open`. A number is given once.
create table work (
    work_id      integer primary key autoincrement,
    partition_no integer not null,
    cdcs_id      integer not null,
    v8l_id       integer not null,
    priority     text not null,
    media        integer not null,
    campaign     text not null,                      -- empty: none
    first_id     integer not null,
    ids          text not null,                      -- a JSON array, ascending
    again        integer not null default 0,         -- rows that were scheduled or tried before: RETRY is ready, too
    expires_at   text not null                       -- no row of it expires earlier
);
create index work_flow on work (partition_no, v8l_id, priority, media, campaign, first_id);
create index work_expiry on work (partition_no, expires_at);
create index work_campaign on work (cdcs_id, campaign) where campaign <> '';

-- Rows that left the ordinary way: scheduled, to be tried again, or of unknown outcome.
create table cdls_open (
    cdls_id      integer primary key,
    kind         text not null check (kind in ('schedule', 'retry', 'unknown')),
    partition_no integer not null,
    cdcs_id      integer not null,
    v8l_id       integer not null,
    priority     text not null,
    media        integer not null,
    campaign     text not null,
    dest         text not null,
    due_at       text,                               -- NULL: an operator settles it
    since        text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
create index cdls_open_due on cdls_open (partition_no, due_at) where due_at is not null;
create index cdls_open_retry on cdls_open (partition_no, due_at) where kind = 'retry';
create index cdls_open_schedule on cdls_open (cdcs_id) where kind = 'schedule';
create index cdls_open_unknown on cdls_open (cdls_id) where kind = 'unknown';
create index cdls_open_campaign on cdls_open (cdcs_id, campaign) where campaign <> '' and kind <> 'unknown';

-- Rows a worker has claimed in one commit. A claim of a row is open while the row's fence in the log is below the claim's.
-- Deleted when the ends of all its calls are written. Which worker owns which partition is kept in the memory of the one
-- process that sends.
create table claim (
    claim_id integer primary key,
    worker   text not null,
    claim_no integer not null,                       -- ascending for each worker
    made_at  text not null,
    unique (worker, claim_no)
);
create table claim_row (
    cdls_id       integer not null,
    fence         integer not null,                  -- the fence the row has when the end of its call is written
    claim_id      integer not null,
    partition_no  integer not null,
    call_deadline text not null,                     -- nobody else settles the row before
    primary key (cdls_id, fence)
) without rowid;
create index claim_row_claim on claim_row (claim_id);
create view cdls_sending as
    select r.cdls_id, r.fence, r.partition_no, k.worker, k.made_at, r.call_deadline
    from claim_row r join claim k on k.claim_id = r.claim_id;

-- Rows that an operator settled and nobody was told of yet: a process that sends tells producers and listeners.
create table settled (
    cdls_id integer primary key,
    status  text not null
);

-- Rows that were sent again, and the copy that was logged for each. A row is sent again once; after that its copy is.
create table resend (
    cdls_id    integer primary key,
    copy_id    integer not null,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
