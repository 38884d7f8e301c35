-- Echoes of messages (docs/decisions, 57), kept until the outcome of their call is known. Small tables: most echoes are
-- forgotten within a second.

-- Echoes whose metadata names the row.
create table echo (
    cdls_id    integer primary key,
    fence      integer not null,                     -- of the claim whose call sent the message
    message_id text not null,                        -- Graph's
    noted_at   text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- Echoes of Instagram accounts, which name no row (webhooks.match_instagram_echoes).
create table echo_unnamed (
    message_id         text primary key,             -- Graph's
    v8l_ig_account_id  text not null,
    dest               text not null,
    text_digest        integer not null,
    sent_at            text not null,                -- by Meta's clock
    noted_at           text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
