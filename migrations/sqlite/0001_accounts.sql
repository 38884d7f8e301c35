-- Accounts, their tokens and broker users, and the lines they send from. Columns of `cd_v8_line` that callers and operators
-- use are described in docs/contract.md, "SQL: for dashboards".
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

-- Which account a user of the broker sends for: the broker vouches for the user_id of each message it delivers.
create table broker_user (
    broker_user text primary key,
    cdcs_id     integer not null references account,
    created_at  text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

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
