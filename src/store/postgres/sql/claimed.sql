-- The open ones of the claims $1 (rows) and $2 (fences); $3 numbers them.
select w.n, c.*
from unnest($1::bigint[], $2::integer[], $3::bigint[]) as w(id, fence, n)
cross join lateral (
    select c.cdls_id, c.v8l_id, c.priority, c.dest, c.attempts, c.tries, c.crashes, c.waiter,
           (extract(epoch from c.expires_at - now()) * 1000)::bigint as valid_ms
    from cdls_{range} c
    where c.cdls_id = w.id and c.fence < w.fence and c.status in ('PENDING', 'RETRY')) as c
