-- Campaigns: their states, and how many of their rows are in each state.

-- A campaign without a row is running.
create table campaign (
    cdcs_id    integer not null,
    cp_id      text not null,
    state      text not null check (state in ('running', 'paused', 'cancelled')),
    changed_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    swept      integer not null default 0,           -- cancelled long ago, and nothing of it waits any more
    primary key (cdcs_id, cp_id)
);
create index campaign_changed on campaign (changed_at);
create index campaign_unswept on campaign (cdcs_id, cp_id) where state = 'cancelled' and not swept;

-- Rows by state: the sum of `rows` of both tables. The transaction that changes rows adds to `campaign_delta`, which keeps
-- when that was; a task moves its rows into `campaign_total` some time later.
create table campaign_delta (
    delta_id integer primary key,
    cdcs_id  integer not null,
    cp_id    text not null,
    v8l_id   integer not null,
    media    integer not null,
    status   text not null,
    rows     integer not null,                       -- negative: so many left the state
    sent     integer not null default 0,             -- of them, rows whose call Graph answered: the campaign's rate
    at       text not null
);
create index campaign_delta_campaign on campaign_delta (cdcs_id, cp_id);

create table campaign_total (
    cdcs_id  integer not null,
    cp_id    text not null,
    v8l_id   integer not null,
    media    integer not null,
    status   text not null,
    rows     integer not null,
    primary key (cdcs_id, cp_id, v8l_id, media, status)
) without rowid;
