-- Rows of partitions ?1 whose retry is due by ?2, at most ?3 of each.
select o.cdls_id, o.v8l_id, o.priority, o.dest, 'RETRY' as status, o.due_at as until
from json_each(?1) p
cross join cdls_open o
where o.cdls_id in (
    select n.cdls_id from cdls_open n indexed by cdls_open_retry
    where n.partition_no = p.value and n.kind = 'retry' and n.due_at <= ?2
    order by n.due_at, n.cdls_id limit ?3)
