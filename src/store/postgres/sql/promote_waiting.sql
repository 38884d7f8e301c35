    select l.cdls_id, l.partition_no, l.cdcs_id, l.v8l_id, l.priority, l.media, l.campaign, c.expires_at
    from locked l cross join lateral (
        select c.expires_at from cdls_{range} c where c.cdls_id = l.cdls_id and c.status in ('PENDING', 'RETRY')) as c
