-- Rows of cancelled campaigns that are scheduled or wait for a retry, in the partitions $1, at most $2.
select o.cdls_id from campaign k cross join lateral (
    select o.cdls_id from cdls_open o
    where o.cdcs_id = k.cdcs_id and o.campaign = k.cp_id and o.campaign <> '' and o.kind <> 'unknown'
      and o.partition_no = any ($1::smallint[])
    order by o.cdcs_id, o.campaign, o.cdls_id limit $2) as o
where k.state = 'cancelled' and not k.swept
limit $2
