-- The log: one row a message, inserted once with everything and updated when its state changes. Columns that dashboards
-- read stand in the contract (docs/contract.md, "SQL: for dashboards"), in its order; the others are ours.

create table cdls (
    cdls_id            integer primary key autoincrement,
    cdcs_id            integer not null,
    v8l_id             integer not null,
    class              text not null,
    dest               text not null,
    mtype              text not null,
    mdata              text not null,
    mcaption           text,
    msg_id             text,
    cp_id              text,
    priority           text not null check (priority in ('high', 'bulk')),
    status             text not null default 'PENDING'
        check (status in ('PENDING', 'RETRY', 'OK', 'ERROR', 'UNKNOWN', 'CANCELLED')),
    status_code        integer not null default 0,
    message_id         text,
    error_code         integer,
    error_subcode      integer,
    error_kind         text,
    error_message      text,
    fbtrace_id         text,
    attempts           integer not null default 0,
    ambiguous_attempts integer not null default 0,
    next_at            text,
    expires_at         text not null,
    created_at         text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    sent_at            text,
    done_at            text,
    delivered_at       text,
    read_at            text,
    -- Ours from here on.
    fence              integer not null default 0,   -- the last claim whose end is written; the next claim has one more
    tries              integer not null default 0,   -- retried answers about the message itself; dispatch.max_attempts bounds it
    crashes            integer not null default 0,   -- workers that died inside a call of this row; three end it as `poison`
    waiter             text,                         -- where the outcome is awaited: reply queue and ticket
    -- The status of a row that left the ordinary way; NULL while it is PENDING and when it is OK.
    exception          text generated always as
        (case when status in ('PENDING', 'OK') then null else status end) virtual
);

-- Every index begins with the account. The row's id ends every index of SQLite by itself, so that the newest rows of each
-- group are read from its end. None names a column that the way from PENDING to OK changes.
create index cdls_account on cdls (cdcs_id, v8l_id);
create index cdls_dest on cdls (cdcs_id, dest);
create index cdls_campaign on cdls (cdcs_id, cp_id) where cp_id is not null;
create index cdls_msg_id on cdls (cdcs_id, msg_id) where msg_id is not null;
create index cdls_exception on cdls (cdcs_id, exception) where exception is not null;
create index cdls_campaign_exception on cdls (cdcs_id, cp_id, exception) where cp_id is not null and exception is not null;
