-- The guards against logging a message twice: keys, lines of batches, and `httpdup` windows.

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

-- A batch that may be sent again. One that has expired loses its name before its lines are forgotten.
create table batch (
    batch_no   integer primary key autoincrement,
    cdcs_id    integer not null,
    batch_id   text,
    expires_at text not null,
    unique (cdcs_id, batch_id)
);
create index batch_expiry on batch (expires_at);

create table batch_line (
    batch_no integer not null,
    line     integer not null,
    cdls_id  integer not null,
    primary key (batch_no, line)
) without rowid;

-- The last message to a recipient that was sent with `httpdup`.
create table http_duplicate (
    v8l_id      integer not null,
    dest        text not null,
    accepted_at text not null,
    primary key (v8l_id, dest)
) without rowid;
create index http_duplicate_age on http_duplicate (accepted_at);
