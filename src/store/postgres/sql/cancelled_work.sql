-- Work of cancelled campaigns in the partitions $1, up to $2 messages.
select work_id, again, ids from (
    select w.*, sum(cardinality(w.ids)) over (order by w.cdcs_id, w.campaign, w.work_id) - cardinality(w.ids) as before
    from campaign k cross join lateral (
        select w.cdcs_id, w.campaign, w.work_id, w.again, w.ids from work w
        where w.cdcs_id = k.cdcs_id and w.campaign = k.cp_id and w.campaign <> ''
          and w.partition_no = any ($1::smallint[])
        order by w.cdcs_id, w.campaign, w.work_id limit $2) as w
    where k.state = 'cancelled' and not k.swept) as w
where before < $2
