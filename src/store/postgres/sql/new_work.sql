-- Work of the partitions $1 with numbers above $2, of the first $3 of all partitions. If there is more, the
-- scan ends with the last of them, else with the last number given out; a number given out and not committed
-- is looked for again.
with looked as materialized (
    select work_id, partition_no, v8l_id, priority, media, campaign, first_id, cardinality(ids) as rows
    from work where work_id > coalesce($2, 9223372036854775807) order by work_id limit $3),
place as (
    select case when (select count(*) from looked) >= $3 then (select max(work_id) from looked)
                else coalesce(greatest($2, (select last_value from work_work_id_seq where is_called)), 0) end as reached,
           (select count(*) from looked) >= $3 as is_full,
           exists (select from campaign where changed_at > now() - interval '10 seconds' and state = 'running') as resumed)
select p.reached, p.is_full, p.resumed, l.work_id, l.v8l_id, l.priority, l.media, l.campaign, l.first_id, l.rows
from place p left join looked l on l.partition_no = any ($1::smallint[])
order by l.work_id
