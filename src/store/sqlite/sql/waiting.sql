-- Work by number ?1, each with the rows that wait for their turn; a row of NULLs for each row that does not.
-- A row that a worker calls Graph for waits, and is marked. Line, lane and medium are the work's.
select w.work_id, w.v8l_id, w.priority, w.media, c.cdls_id, c.dest, c.fence, c.waiter, cast(c.expires_at as text) as expires_at,
       exists (select 1 from claim_row r where r.cdls_id = c.cdls_id and r.fence > c.fence) as claimed
from json_each(?1) j
cross join work w
cross join json_each(w.ids) i
left join cdls c on c.cdls_id = i.value and (
    c.status = 'PENDING'
    or (c.status = 'RETRY' and w.again and not exists (select 1 from cdls_open o where o.cdls_id = c.cdls_id)))
where w.work_id = j.value
