-- The matching rows, as they are before the change.
before_{range} as materialized (
    select w.*, c.* from wanted w cross join lateral (
        select c.status as was, c.fence <> w.from_fence as is_late, c.cdcs_id, c.v8l_id, c.cp_id, c.priority,
               c.mtype <> 'text' as media, c.dest
        from cdls_{range} c
        where c.cdls_id = w.id
          and (c.fence = w.from_fence and c.status in ('PENDING', 'RETRY')
               or w.late and c.fence = w.to_fence and c.status in ('PENDING', 'RETRY', 'UNKNOWN'))
          and (w.error_kind is distinct from 'line' or not exists (
              select from cd_v8_line l where l.v8l_id = c.v8l_id and l.cdcs_id = c.cdcs_id)){withheld}
        for update) as c),
changed_{range} as (
    update cdls_{range} c set
{set}
    from before_{range} w where c.cdls_id = w.id
    returning w.id, w.is_late, w.was, w.status, w.error_kind, w.next_ms, w.cdcs_id, w.v8l_id, w.cp_id, w.priority, w.media,
              w.dest, c.error_code as row_code, c.error_subcode as row_subcode, c.error_kind as row_kind)
