-- One claim of a row without a campaign. The lease is read `for share`: a worker that takes over waits for
-- claims that are being committed.
with lease as materialized (
    select partitions from worker_lease where worker = $1 and expires_at > now() for share){closed}
insert into claim (worker, claim_no, ids, fences, partitions, deadline_ms)
select $1, $3, array[c.cdls_id], array[c.fence + 1], array[(c.v8l_id % 64)::smallint], array[$6]
from cdls_{range} c join lease on (c.v8l_id % 64)::smallint = any (lease.partitions)
where c.cdls_id = $4 and c.fence = $5 and c.status in ('PENDING', 'RETRY') and c.expires_at > now() and c.cp_id is null
  and ($7::bigint is null
       or $7 = ('x' || substr(md5(concat_ws('/', c.cdcs_id, c.v8l_id, c.dest, c.mdata)), 1, 16))::bit(64)::bigint)
on conflict (worker, claim_no) do nothing
returning $4 as id
