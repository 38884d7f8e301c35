-- Meta's apps, whose secrets sign webhooks; the app of a line; and the inbox of webhooks where the broker is a part of the
-- process.

create table meta_app (
    meta_app_id  text primary key,
    name         text,
    -- Plain, or sealed with a key of security.app_key. Null: none.
    secret       text,
    verify_token text,
    created_at   text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- Null: the app of the settings.
alter table cd_v8_line add column v8l_meta_app text references meta_app;

-- Bodies as they came, each until it is applied. A row that is set aside is not taken again.
create table webhook_inbox (
    inbox_id      integer primary key autoincrement,
    body          blob not null,
    meta_app_id   text,
    received_at   text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    claimed_until text,
    tries         integer not null default 0,
    aside_at      text,
    aside_reason  text
);
create index webhook_inbox_waiting on webhook_inbox (inbox_id) where aside_at is null;
