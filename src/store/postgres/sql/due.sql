-- Rows of the partitions $1 that are due, none due before $2, at most $3: the earliest of each partition
-- first, partitions in turn. Also the time at which the next row is due.
with due as materialized (
    select d.* from unnest($1::smallint[]) as p(partition_no) cross join lateral (
        select cdls_id, due_at, row_number() over (order by due_at, cdls_id) as place from (
            select o.cdls_id, o.due_at from cdls_open o
            where o.partition_no = p.partition_no and o.due_at >= coalesce($2::timestamptz, '-infinity') and o.due_at <= now()
            order by o.due_at, o.cdls_id limit $3) as first) as d
    order by d.place, d.due_at, d.cdls_id limit $3),
next as (
    select min(n.due_at) as due_at from unnest($1::smallint[]) as p(partition_no) cross join lateral (
        select o.due_at from cdls_open o where o.partition_no = p.partition_no and o.due_at > now()
        order by o.due_at limit 1) as n)
select coalesce((select array_agg(cdls_id order by cdls_id) from due), '{}') as ids,
       case when (select count(*) from due) < $3 then now() else (select max(due_at) from due) end as reached,
       ceil(extract(epoch from next.due_at - now()) * 1000)::bigint as next_ms
from next
