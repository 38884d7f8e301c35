-- What operators need: rows whose outcome is not known, and what was sent again.

-- Only UNKNOWN rows stand in it, so that other rows cost nothing.
create index cdls_unknown on cdls (cdls_id, sent_at) where status = 'UNKNOWN';

-- Rows that were sent again, and the copy that was logged for each. A row is sent again once; after that its copy is.
create table resend (
    cdls_id    integer primary key,
    copy_id    integer not null,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
