-- Rows ?1 (arrays: id, kind, due at) begin to wait for a time or an operator. Now ?2.
insert into cdls_open (cdls_id, kind, partition_no, cdcs_id, v8l_id, priority, media, campaign, dest, due_at, since)
select c.cdls_id, j.value->>1, c.v8l_id % 64, c.cdcs_id, c.v8l_id, c.priority, c.mtype <> 'text', coalesce(c.cp_id, ''),
       c.dest, j.value->>2, ?2
from json_each(?1) j
cross join cdls c
where c.cdls_id = j.value->>0
on conflict (cdls_id) do update set kind = excluded.kind, due_at = excluded.due_at, since = excluded.since
