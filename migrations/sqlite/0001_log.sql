-- Accounts, tokens, lines, and the log. Columns that callers and dashboards read stand in the contract
-- (docs/contract.md, "SQL: for dashboards"); the others are ours and may change.
-- Times are RFC 3339 text with milliseconds and Z, so that their order is that of the text.

create table account (
    cdcs_id     integer primary key autoincrement,
    cdcs_name   text not null,
    cdcs_active integer not null default 1,
    created_at  text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- A token is kept as its first ten characters and the SHA-256 of the whole; the token itself is shown once.
create table account_token (
    token_id   text primary key,
    cdcs_id    integer not null references account,
    token_hash blob not null,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    revoked_at text
);
create index account_token_account on account_token (cdcs_id);

create table cd_v8_line (
    v8l_id            integer primary key autoincrement check (v8l_id > 0),
    cdcs_id           integer not null references account,
    v8l_name          text,
    v8l_class         text not null check (v8l_class in ('messenger', 'instagram')),
    v8l_active        integer not null default 1,
    v8l_wa_api_key    text,
    v8l_fb_page_id    text,
    v8l_ig_account_id text,
    v8l_rate_text     integer check (v8l_rate_text > 0),
    v8l_rate_media    integer check (v8l_rate_media > 0),
    v8l_paused_until  text,
    v8l_pause_reason  text
);
create index cd_v8_line_account on cd_v8_line (cdcs_id);

-- A campaign without a row is running.
create table campaign (
    cdcs_id    integer not null,
    cp_id      text not null,
    state      text not null check (state in ('running', 'paused', 'cancelled')),
    changed_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    primary key (cdcs_id, cp_id)
);

-- One key, one row: what a repeated request is answered from.
create table idempotency_key (
    cdcs_id      integer not null,
    key          text not null,
    request_hash blob not null,
    cdls_id      integer not null,
    expires_at   text not null,
    primary key (cdcs_id, key)
);
create index idempotency_key_expiry on idempotency_key (expires_at);

create table cdls (
    cdls_id            integer primary key autoincrement,
    cdcs_id            integer not null,
    v8l_id             integer not null,
    class              text not null,
    dest               text not null,
    mtype              text not null,
    mdata              text not null,
    mcaption           text,
    msg_id             text,
    cp_id              text,
    priority           text not null,
    status             text not null default 'PENDING',
    status_code        integer not null default 0,
    message_id         text,
    error_code         integer,
    error_subcode      integer,
    error_kind         text,
    error_message      text,
    fbtrace_id         text,
    attempts           integer not null default 0,
    ambiguous_attempts integer not null default 0,
    next_at            text,
    expires_at         text not null,
    created_at         text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    sent_at            text,
    done_at            text,
    delivered_at       text,
    read_at            text,
    -- Ours from here on.
    partition_no       integer not null generated always as (v8l_id % 64) stored,
    media              integer not null generated always as (mtype <> 'text') stored,
    campaign           text not null generated always as (coalesce(cp_id, '')) stored,
    fence              integer not null default 0,   -- raised by each claim; only its holder may write the result
    tries              integer not null default 0,   -- retried answers about the message itself; dispatch.max_attempts bounds it
    worker             text,                         -- who holds the claim
    call_deadline      text,                         -- nobody else settles a claimed row before this
    waiter             text                          -- where the outcome is awaited: reply queue and ticket
);

-- Rows that may be claimed now, in the order in which a line serves them. Scheduled and deferred rows are never
-- walked over.
create index cdls_ready on cdls (v8l_id, priority, media, campaign, cdls_id)
    where status in ('PENDING', 'RETRY') and next_at is null;

-- Rows somebody must look at when a time comes: schedules, retries, claims.
create index cdls_due on cdls (partition_no, coalesce(call_deadline, next_at))
    where status in ('PENDING', 'RETRY', 'SENDING') and (next_at is not null or call_deadline is not null);

-- Which worker process owns which partition of the lines.
create table partition_lease (
    partition_no integer primary key,
    owner        text,
    epoch        integer not null default 0,
    expires_at   text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
with recursive n(i) as (select 0 union all select i + 1 from n where i < 63)
insert into partition_lease (partition_no) select i from n;

-- Worker processes that are alive, so that each knows its fair share.
create table worker_presence (
    worker     text primary key,
    expires_at text not null
);
