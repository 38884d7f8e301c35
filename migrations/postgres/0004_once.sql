-- The guards against logging a message twice: keys, lines of batches, and `httpdup` windows.

-- One key, one row: what a repeated request is answered from.
create table idempotency_key (
    cdcs_id       bigint not null,
    key           text collate "C" not null,
    request_hash  bytea not null,
    cdls_id       bigint not null,
    expires_at    timestamptz not null,
    primary key (cdcs_id, key)
);
create index idempotency_key_expiry on idempotency_key (expires_at);

-- A batch that may be sent again. One that has expired loses its name before its lines are forgotten.
create table batch (
    batch_no   bigint generated always as identity primary key,
    cdcs_id    bigint not null,
    batch_id   text collate "C",
    expires_at timestamptz not null,
    unique (cdcs_id, batch_id)
);
create index batch_expiry on batch (expires_at);

create table batch_line (
    batch_no bigint not null,
    line     bigint not null,
    cdls_id  bigint not null,
    primary key (batch_no, line)
);

-- The last message to a recipient that was sent with `httpdup`.
create table http_duplicate (
    v8l_id      bigint not null,
    dest        text collate "C" not null,
    window_ms   bigint not null,
    accepted_at timestamptz not null,
    primary key (v8l_id, dest)
);
create index http_duplicate_age on http_duplicate (accepted_at);
