-- Turns the rows $1 that are still due and not locked into work. Rows that have ended leave the queue.
with locked as materialized (
    select o.* from (select id from unnest($1::bigint[]) as u(id) order by id) as w
    join cdls_open o on o.cdls_id = w.id
    where o.due_at <= now()
    order by o.cdls_id for update of o skip locked),
gone as (
    delete from cdls_open o using locked l where o.cdls_id = l.cdls_id),
waiting as materialized (
{waiting}),
placed as (
    select *, (row_number() over (partition by cdcs_id, v8l_id, priority, media, campaign order by cdls_id) - 1) / 64 as part
    from waiting)
insert into work (partition_no, cdcs_id, v8l_id, priority, media, campaign, first_id, ids, again, expires_at)
select partition_no, cdcs_id, v8l_id, priority, media, campaign, min(cdls_id), array_agg(cdls_id order by cdls_id), true,
       min(expires_at)
from placed
group by partition_no, cdcs_id, v8l_id, priority, media, campaign, part
order by min(cdls_id)
returning work_id, v8l_id, priority, media, campaign, first_id, cardinality(ids) as rows
