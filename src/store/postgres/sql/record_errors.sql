-- Rows of campaigns that ended as ERROR, by error.
erred as (
    insert into campaign_error_delta (cdcs_id, cp_id, code, subcode, kind, rows)
    select cdcs_id, cp_id, coalesce(row_code::text, ''), coalesce(row_subcode::text, ''), coalesce(row_kind, ''), count(*)
    from changed where status = 'ERROR' and cp_id is not null
    group by 1, 2, 3, 4, 5)
