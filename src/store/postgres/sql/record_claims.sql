    select w.id, w.fence + 1 as fence, w.deadline_ms, c.partition_no, c.is_plain
    from unnest($5::bigint[], $6::integer[], $7::bigint[], $8::bigint[]) as w(id, fence, deadline_ms, digest)
    cross join lateral (
        select (c.v8l_id % 64)::smallint as partition_no, c.cp_id is null as is_plain from cdls_{range} c
        where c.cdls_id = w.id and c.fence = w.fence and c.status in ('PENDING', 'RETRY') and c.expires_at > now()
          and (w.digest is null or w.digest = ('x' || substr(md5(concat_ws('/', c.cdcs_id, c.v8l_id, c.dest, c.mdata)), 1, 16))::bit(64)::bigint)
          and (c.cp_id is null or not exists (
              select from campaign p where p.cdcs_id = c.cdcs_id and p.cp_id = c.cp_id and p.state <> 'running'))) as c
    join lease on c.partition_no = any (lease.partitions)
