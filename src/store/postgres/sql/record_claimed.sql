claimed as (
    insert into claim (worker, claim_no, ids, fences, partitions, deadline_ms)
    select $1, $4, array_agg(id order by id), array_agg(fence order by id), array_agg(partition_no order by id),
           array_agg(deadline_ms order by id)
    from passed having count(*) > 0
    on conflict (worker, claim_no) do nothing
    returning ids)
