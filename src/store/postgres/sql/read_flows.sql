-- The next work of each flow, behind the place it was read to: as many rows as hold the wanted messages.
-- `found`: rows of `work` that were looked at.
with picked as materialized (
    select f.read_no, w.*
    from unnest($1::smallint[], $2::bigint[], $3::text[], $4::boolean[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[])
         with ordinality as f(partition_no, v8l_id, priority, media, campaign, first_id, work_id, rows, read_no)
    cross join lateral (
        select count(*) over () as found, n.*,
               sum(cardinality(n.ids)) over (order by n.first_id, n.work_id) - cardinality(n.ids) as before
        from (select * from work w
              where w.partition_no = f.partition_no and w.v8l_id = f.v8l_id and w.priority = f.priority
                and w.media = f.media and w.campaign = f.campaign
                and (w.first_id, w.work_id) > (f.first_id, f.work_id)
              order by w.first_id, w.work_id limit f.rows) as n) as w
    where w.before < f.rows and (f.campaign = '' or not exists (
        select from campaign p where p.cdcs_id = w.cdcs_id and p.cp_id = f.campaign and p.state <> 'running')))
