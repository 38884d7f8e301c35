-- The waiting ones of the rows $1: in work of the first turn ($2 false) PENDING ones, in work of a further
-- turn (true) also RETRY ones that do not wait for their time, and with NULL all that have not ended. $3: the
-- number of the work.
select w.work_id, c.*, c.expires_at <= now() as is_expired
from unnest($1::bigint[], $2::boolean[], $3::bigint[]) as w(id, again, work_id)
cross join lateral (
    select c.cdls_id, c.v8l_id, c.priority, c.mtype, c.dest, c.fence, c.waiter, c.expires_at
    from cdls_{range} c
    where c.cdls_id = w.id
      and (c.status = 'PENDING' or c.status = 'RETRY' and (w.again is null or w.again and not exists (
          select from cdls_open o where o.cdls_id = c.cdls_id)))) as c
order by c.cdls_id
