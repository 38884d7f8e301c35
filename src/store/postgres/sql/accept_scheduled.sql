, scheduled as (
    insert into cdls_open (cdls_id, kind, partition_no, cdcs_id, v8l_id, priority, media, campaign, dest, due_at)
    select cdls_id, 'schedule', partition_no, cdcs_id, v8l_id, priority, media, campaign, dest, next_at
    from logged where next_at is not null order by cdls_id)
