-- Tokens with a name, scopes and an end; the addresses from which an account may be used; banned addresses.

alter table account_token
    add column name         text,
    -- Null: SHA-256 of the token. Else HMAC-SHA-256 under the key of security.token_key with this id.
    add column key_id       text collate "C",
    -- Words separated by commas; null: every scope.
    add column scopes       text,
    add column expires_at   timestamptz,
    add column last_used_at timestamptz;

-- Networks from which callers of an account may come; an account without any is not restricted.
create table account_network (
    cdcs_id bigint not null references account on delete cascade,
    network text collate "C" not null,
    primary key (cdcs_id, network)
);

-- Addresses whose requests are refused: an IPv4 address, or an IPv6 network of /64.
create table ban (
    address    text collate "C" primary key,
    reason     text not null,
    until      timestamptz not null,
    created_at timestamptz not null default now()
);
