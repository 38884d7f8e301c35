-- Open claims of rows of partitions ?1.
select c.cdls_id, c.v8l_id, c.priority, c.dest, r.fence, k.worker, c.attempts, c.tries, c.crashes, c.expires_at, k.made_at,
       r.call_deadline, c.waiter
from claim_row r
cross join claim k
cross join cdls c
where k.claim_id = r.claim_id and c.cdls_id = r.cdls_id
  and r.partition_no in (select value from json_each(?1)) and r.fence > c.fence and c.status in ('PENDING', 'RETRY')
