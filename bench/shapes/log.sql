-- The log of the shapes in which the queue has left it: three indexes for an ordinary message, none with a column whose value
-- an ordinary outcome changes. What changes stands behind the texts. Also the lease that a claim reads.

create table campaign (
    cdcs_id    bigint not null,
    cp_id      text collate "C" not null,
    state      text collate "C" not null check (state in ('running', 'paused', 'cancelled')),
    primary key (cdcs_id, cp_id)
);

create sequence cdls_id_seq as bigint;

create table cdls (
    cdls_id            bigint not null default nextval('cdls_id_seq'),
    cdcs_id            bigint not null,
    v8l_id             bigint not null,
    class              text collate "C" not null,
    dest               text collate "C" not null,
    mtype              text collate "C" not null,
    mdata              text not null,
    mcaption           text,
    msg_id             text collate "C",
    cp_id              text collate "C",
    priority           text collate "C" not null,
    status             text collate "C" not null default 'PENDING',
    status_code        integer not null default 0,
    message_id         text collate "C",
    error_code         integer,
    error_subcode      integer,
    error_kind         text collate "C",
    error_message      text,
    fbtrace_id         text,
    attempts           integer not null default 0,
    ambiguous_attempts integer not null default 0,
    next_at            timestamptz,
    expires_at         timestamptz not null,
    created_at         timestamptz not null default now(),
    sent_at            timestamptz,
    done_at            timestamptz,
    delivered_at       timestamptz,
    read_at            timestamptz,
    fence              integer not null default 0,
    tries              integer not null default 0,
    crashes            integer not null default 0,
    waiter             text collate "C",
    primary key (cdls_id)
) partition by range (cdls_id);
create index cdls_account on cdls (cdcs_id, v8l_id, cdls_id);
create index cdls_dest on cdls (cdcs_id, dest, cdls_id);
create index cdls_campaign on cdls (cdcs_id, cp_id, cdls_id) where cp_id is not null;
create index cdls_msg_id on cdls (cdcs_id, msg_id, cdls_id) where msg_id is not null;
create index cdls_error on cdls (cdcs_id, error_kind, cdls_id) where error_kind is not null;
create table cdls_0 partition of cdls for values from (0) to (10000000) with (fillfactor = :fillfactor);
create table cdls_1 partition of cdls for values from (10000000) to (20000000) with (fillfactor = :fillfactor);

create table worker_lease (
    worker      text collate "C" primary key,
    partitions  smallint[] not null,
    expires_at  timestamptz not null
) with (fillfactor = 50);
insert into worker_lease select 'worker-1', array_agg(n), 'infinity' from generate_series(0, 63) n;
