-- Ends of calls, for rows without a campaign that only their worker has changed.
changed_{range} as (
    update cdls_{range} c set
{set}
    from wanted w
    where c.cdls_id = w.id and c.fence = w.from_fence and c.status in ('PENDING', 'RETRY')
    returning c.cdls_id as id, false as is_late)
