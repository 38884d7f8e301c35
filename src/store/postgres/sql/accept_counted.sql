, counted as (
    insert into campaign_delta (cdcs_id, cp_id, v8l_id, media, status, rows)
    select cdcs_id, cp_id, v8l_id, media, 'PENDING', count(*) from logged where cp_id is not null
    group by cdcs_id, cp_id, v8l_id, media)
