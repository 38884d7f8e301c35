-- Echoes of messages (docs/decisions, 57), kept until the outcome of their call is known. Small tables: most echoes are
-- forgotten within a second.

-- Echoes whose metadata names the row.
create table echo (
    cdls_id    bigint primary key,
    fence      integer not null,                     -- of the claim whose call sent the message
    message_id text collate "C" not null,            -- Graph's
    noted_at   timestamptz not null default now()
);

-- Echoes of Instagram accounts, which name no row (webhooks.match_instagram_echoes).
create table echo_unnamed (
    message_id         text collate "C" primary key, -- Graph's
    v8l_ig_account_id  text collate "C" not null,
    dest               text collate "C" not null,
    text_digest        bigint not null,
    sent_at            timestamptz not null,         -- by Meta's clock
    noted_at           timestamptz not null default now()
);
