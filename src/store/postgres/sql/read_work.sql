-- Work by number ($1), unless its campaign does not run.
with picked as materialized (
    select 1::bigint as read_no, 0::bigint as found, w.*
    from unnest($1::bigint[]) as n(work_id) join work w on w.work_id = n.work_id
    where w.campaign = '' or not exists (
        select from campaign p where p.cdcs_id = w.cdcs_id and p.cp_id = w.campaign and p.state <> 'running'))
