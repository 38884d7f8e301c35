-- Rows of partitions ?1 that are due by ?2 and not before ?3, at most ?4 of each. One partition at a time, so
-- that the index gives the order and a million due rows are not sorted for the first thousand.
select o.cdls_id, o.partition_no, o.due_at
from json_each(?1) p
cross join cdls_open o
where o.cdls_id in (
    select n.cdls_id from cdls_open n indexed by cdls_open_due
    where n.partition_no = p.value and n.due_at <= ?2 and n.due_at >= ?3
    order by n.due_at, n.cdls_id limit ?4)
