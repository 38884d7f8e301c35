-- What Meta's events tell of recipients and lines (docs/decisions, 56).

-- Recipients that wrote to a line, or could not be reached. A recipient without a row is one of whom nothing is known.
create table cd_recipient (
    v8l_id            bigint not null,
    dest              text collate "C" not null,
    last_inbound_at   timestamptz,                   -- by Meta's clock
    window_until      timestamptz,                   -- 24 hours later
    unreachable_since timestamptz,                   -- Graph refused a message with 551, and nothing came since
    primary key (v8l_id, dest)
) with (fillfactor = 70);
-- Counts the recipients that wrote since a time.
create index cd_recipient_inbound on cd_recipient (v8l_id, last_inbound_at) where last_inbound_at is not null;
-- Finds the recipients whose windows close soonest.
create index cd_recipient_window on cd_recipient (v8l_id, window_until, dest) where window_until is not null;

-- The last time that Meta blocked a line's Page, or ended that: earlier events change nothing any more.
create table line_enforcement (
    v8l_id bigint primary key,
    action text collate "C" not null check (action in ('block', 'unblock')),
    reason text,
    at     timestamptz not null
);

-- Receipts that came while a message to their recipient had no outcome yet: they are applied again for a while. `mark` is
-- `m` and Graph's id of the message, or `t` and a watermark in milliseconds.
create table early_receipt (
    v8l_id  bigint not null,
    dest    text collate "C" not null,
    is_read boolean not null,
    mark    text collate "C" not null,
    cdcs_id bigint not null,
    at      timestamptz not null,
    kept_at timestamptz not null default now(),
    look_at timestamptz not null default now(),
    primary key (v8l_id, dest, is_read, mark)
);
create index early_receipt_look on early_receipt (look_at);

-- Events name a Page or an Instagram account.
create index cd_v8_line_page on cd_v8_line (btrim(v8l_fb_page_id, E' \t\r\n')) where v8l_fb_page_id is not null;
create index cd_v8_line_instagram on cd_v8_line (btrim(v8l_ig_account_id, E' \t\r\n')) where v8l_ig_account_id is not null;
