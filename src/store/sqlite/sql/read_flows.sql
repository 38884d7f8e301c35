-- The next work of flows ?1 (arrays: partition, line, lane, media, campaign, then the first id and the number
-- of the work before, or 0 and 0), at most ?2 of each.
select j.key as read, w.work_id, w.first_id, json_array_length(w.ids) as rows
from json_each(?1) j
cross join work w
where w.work_id in (
    select n.work_id from work n indexed by work_flow
    where n.partition_no = j.value->>0 and n.v8l_id = j.value->>1 and n.priority = j.value->>2 and n.media = j.value->>3
      and n.campaign = j.value->>4 and (n.first_id, n.work_id) > (j.value->>5, j.value->>6)
      and not exists (
          select 1 from campaign k
          where n.campaign <> '' and k.cdcs_id = n.cdcs_id and k.cp_id = n.campaign and k.state <> 'running')
    order by n.first_id, n.work_id limit ?2)
