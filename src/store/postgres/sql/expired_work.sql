-- Work of the partitions $1 with a row whose time has passed, the earliest first, at most $2.
select w.work_id, w.again, w.ids from unnest($1::smallint[]) as p(partition_no) cross join lateral (
    select work_id, again, ids, expires_at from work w
    where w.partition_no = p.partition_no and w.expires_at <= now()
    order by w.expires_at limit $2) as w
order by w.expires_at limit $2
