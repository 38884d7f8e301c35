
-- `ended`: the rows to be logged again. $7: their new campaign, if not their own; $9: milliseconds they are
-- valid.
numbered as materialized (
    select e.cdls_id, e.cdcs_id, e.v8l_id, e.class, e.dest, e.mtype, e.mdata, e.mcaption, e.msg_id,
           coalesce($7, e.cp_id) as cp_id, e.priority, e.mtype <> 'text' as media,
           now() + $9 * interval '1 millisecond' as expires_at, nextval('cdls_id_seq') as copy_id
    from (select * from ended order by cdls_id) as e),
copied as (
    insert into cdls (cdls_id, cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, expires_at)
    select copy_id, cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, expires_at
    from numbered order by copy_id),
placed as (
    select n.*, (row_number() over (
        partition by n.cdcs_id, n.v8l_id, n.priority, n.media, n.cp_id order by n.copy_id) - 1) / 64 as part
    from numbered n),
queued as (
    insert into work (partition_no, cdcs_id, v8l_id, priority, media, campaign, first_id, ids, expires_at)
    select (v8l_id % 64)::smallint, cdcs_id, v8l_id, priority, media, coalesce(cp_id, ''),
           min(copy_id), array_agg(copy_id order by copy_id), min(expires_at)
    from placed group by cdcs_id, v8l_id, priority, media, cp_id, part order by min(copy_id)),
counted as (
    insert into campaign_delta (cdcs_id, cp_id, v8l_id, media, status, rows)
    select cdcs_id, cp_id, v8l_id, media, 'PENDING', count(*) from numbered where cp_id is not null
    group by cdcs_id, cp_id, v8l_id, media)
insert into resend (cdls_id, copy_id) select cdls_id, copy_id from numbered
returning cdls_id, copy_id
