-- Tokens with a name, scopes and an end; the addresses from which an account may be used; banned addresses.

alter table account_token add column name text;
-- Null: SHA-256 of the token. Else HMAC-SHA-256 under the key of security.token_key with this id.
alter table account_token add column key_id text;
-- Words separated by commas; null: every scope.
alter table account_token add column scopes text;
alter table account_token add column expires_at text;
alter table account_token add column last_used_at text;

-- Networks from which callers of an account may come; an account without any is not restricted.
create table account_network (
    cdcs_id integer not null references account on delete cascade,
    network text not null,
    primary key (cdcs_id, network)
);

-- Addresses whose requests are refused: an IPv4 address, or an IPv6 network of /64.
create table ban (
    address    text primary key,
    reason     text not null,
    until      text not null,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
