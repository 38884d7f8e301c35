-- What Meta's events tell of recipients and lines (docs/decisions, 56).

-- Recipients that wrote to a line, or could not be reached. A recipient without a row is one of whom nothing is known.
create table cd_recipient (
    v8l_id            integer not null,
    dest              text not null,
    last_inbound_at   text,                          -- by Meta's clock
    window_until      text,                          -- 24 hours later
    unreachable_since text,                          -- Graph refused a message with 551, and nothing came since
    primary key (v8l_id, dest)
) without rowid;
-- Counts the recipients that wrote since a time.
create index cd_recipient_inbound on cd_recipient (v8l_id, last_inbound_at) where last_inbound_at is not null;
-- Finds the recipients whose windows close soonest.
create index cd_recipient_window on cd_recipient (v8l_id, window_until, dest) where window_until is not null;

-- The last time that Meta blocked a line's Page, or ended that: earlier events change nothing any more.
create table line_enforcement (
    v8l_id integer primary key,
    action text not null check (action in ('block', 'unblock')),
    reason text,
    at     text not null
);

-- Receipts that came while a message to their recipient had no outcome yet: they are applied again for a while. `mark` is
-- `m` and Graph's id of the message, or `t` and a watermark in milliseconds.
create table early_receipt (
    v8l_id  integer not null,
    dest    text not null,
    is_read integer not null,
    mark    text not null,
    cdcs_id integer not null,
    at      text not null,
    kept_at text not null,
    look_at text not null,
    primary key (v8l_id, dest, is_read, mark)
) without rowid;
create index early_receipt_look on early_receipt (look_at);
