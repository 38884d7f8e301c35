-- The work, and one row without a number for the scheduled messages.
select work_id, v8l_id, priority, media, campaign, ids, pg_current_xact_id()::text as xid from queued
union all
select null, null, null, null, null, array_agg(cdls_id), pg_current_xact_id()::text
from logged where next_at is not null having count(*) > 0
