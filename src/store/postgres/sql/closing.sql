-- Waiting messages of a flow ($1 partition, $2 line, $3 lane, $4 media, $5 campaign; account $6), behind the id $7, whose
-- recipients' windows close within the time that the line, at a rate of $8, needs for the backlog of the lane and medium.
-- Recipients behind $9 and $10 (end of the window, recipient), at most $11, and $12 messages of each; the backlog is
-- counted over $13 rows of `work`. A recipient without a message is a row with NULLs.
with backlog as materialized (
    select coalesce(sum(n.rows), 0)::double precision as rows from (
        select cardinality(w.ids) as rows from work w
        where w.partition_no = $1 and w.v8l_id = $2 and w.priority = $3 and w.media = $4 limit $13) as n),
closing as materialized (
    select r.dest, r.window_until from cd_recipient r
    where r.v8l_id = $2 and r.window_until > now() and r.unreachable_since is null
      and r.window_until <= now() + least((select b.rows from backlog b) / $8::double precision, 86400) * interval '1 second'
      and ($9::timestamptz is null or (r.window_until, r.dest) > ($9::timestamptz, $10::text collate "C"))
    order by r.window_until, r.dest limit $11),
numbered as (
    select k.dest, k.window_until, row_number() over (order by k.window_until, k.dest) as k_no from closing k),
found as (
    select k.k_no, k.window_until, k.dest, c.cdls_id, c.v8l_id, c.cdcs_id, c.priority, c.mtype, c.cp_id, c.mdata, c.fence,
           c.attempts, c.tries, c.expires_at, c.waiter, w.work_id
    from numbered k
    left join lateral (
        select * from cdls c
        where c.cdcs_id = $6 and c.dest = k.dest and c.cdls_id > $7 and c.v8l_id = $2 and c.priority = $3
          and c.status = 'PENDING' and (c.mtype <> 'text') = $4 and coalesce(c.cp_id, '') = $5
          and ($5 = '' or not exists (
              select from campaign p where p.cdcs_id = $6 and p.cp_id = $5 and p.state <> 'running'))
        order by c.cdls_id limit $12) as c on true
    left join lateral (
        select n.work_id from (
            select w.work_id, w.ids from work w
            where w.partition_no = $1 and w.v8l_id = $2 and w.priority = $3 and w.media = $4 and w.campaign = $5
              and w.first_id <= c.cdls_id
            order by w.first_id desc, w.work_id desc limit 16) as n
        where c.cdls_id = any (n.ids) limit 1) as w on true)
