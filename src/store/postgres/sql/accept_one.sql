-- Logs one message without a campaign and without a scheduled time, and adds its work.
-- lost_commit.sql finds this statement by its first word.
with logged as (
    insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, priority, expires_at, waiter, commit_mark)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10 * interval '1 millisecond', $11, $12)
    returning cdls_id, expires_at)
insert into work (partition_no, cdcs_id, v8l_id, priority, media, campaign, first_id, ids, expires_at)
select ($2 % 64)::smallint, $1, $2, $9, $5 <> 'text', '', cdls_id, array[cdls_id], expires_at from logged
returning work_id, v8l_id, priority, media, campaign, ids, '' as xid
