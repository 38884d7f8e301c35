-- Campaigns: their states, and how many of their rows are in each state.

-- A campaign without a row is running.
create table campaign (
    cdcs_id    bigint not null,
    cp_id      text collate "C" not null,
    state      text collate "C" not null check (state in ('running', 'paused', 'cancelled')),
    changed_at timestamptz not null default now(),
    swept      boolean not null default false,       -- cancelled long ago, and nothing of it waits any more
    primary key (cdcs_id, cp_id)
);
create index campaign_changed on campaign (changed_at);
create index campaign_unswept on campaign (cdcs_id, cp_id) where state = 'cancelled' and not swept;

-- Rows by state: the sum of `rows` of both tables. The statement that changes rows adds to `campaign_delta`; a task moves its
-- rows into `campaign_total` some time later. Rows that are added never wait for each other, and an old snapshot does not
-- make a counter slow that changes a thousand times a second.
create table campaign_delta (
    delta_id bigint generated always as identity primary key,
    cdcs_id  bigint not null,
    cp_id    text collate "C" not null,
    v8l_id   bigint not null,
    media    boolean not null,
    status   text collate "C" not null,
    rows     bigint not null,                        -- negative: so many left the state
    sent     integer not null default 0,             -- of them, rows whose call Graph answered: the campaign's rate
    at       timestamptz not null default now()
);
create index campaign_delta_campaign on campaign_delta (cdcs_id, cp_id, delta_id);

create table campaign_total (
    cdcs_id  bigint not null,
    cp_id    text collate "C" not null,
    v8l_id   bigint not null,
    media    boolean not null,
    status   text collate "C" not null,
    rows     bigint not null,
    primary key (cdcs_id, cp_id, v8l_id, media, status)
) with (fillfactor = 50);
