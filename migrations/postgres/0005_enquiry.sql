-- What senders ask afterwards: GET /api/v2/messages and campaigns (docs/adr, "Four indexes for what senders ask").
-- Every index begins with the account, so that no statement of dispatch is ever tempted by one of them, and ends with
-- cdls_id, so that the newest rows of each group are read from its end.

-- By line, by status, and all of an account's: the few groups of an account are merged.
create index cdls_account on cdls (cdcs_id, v8l_id, status, cdls_id);

-- A campaign's counts by line, medium and status come from this index alone.
create index cdls_campaign on cdls (cdcs_id, cp_id, v8l_id, media, status, cdls_id) where cp_id is not null;

create index cdls_msg_id on cdls (cdcs_id, msg_id, cdls_id) where msg_id is not null;

create index cdls_dest on cdls (cdcs_id, dest, cdls_id);
