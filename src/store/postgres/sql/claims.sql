-- Batches of claims. $1 and $2: workers, and the numbers from which their batches are looked at; other living
-- workers are looked at from the beginning.
select c.worker, c.claim_no, c.ids, c.fences, c.partitions, c.deadline_ms,
       (extract(epoch from now() - c.made_at) * 1000)::bigint as age_ms
from (select p.worker, max(p.claim_no) as claim_no
      from (select worker, 0::bigint as claim_no from worker_lease
            union all select * from unnest($1::text[], $2::bigint[])) as p(worker, claim_no)
      group by p.worker) as p
cross join lateral (select * from claim c where c.worker = p.worker and c.claim_no >= p.claim_no) as c
order by c.worker, c.claim_no
