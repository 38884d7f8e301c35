-- Rows that begin to wait for a time or an operator, and those of such rows that end.
opened as (
    insert into cdls_open as o (cdls_id, kind, partition_no, cdcs_id, v8l_id, priority, media, campaign, dest, due_at)
    select id, case status when 'RETRY' then 'retry' else 'unknown' end, (v8l_id % 64)::smallint, cdcs_id, v8l_id, priority,
           media, coalesce(cp_id, ''), dest, now() + next_ms * interval '1 millisecond'
    from changed where status in ('RETRY', 'UNKNOWN') order by id
    on conflict (cdls_id) do update set kind = excluded.kind, due_at = excluded.due_at, since = excluded.since),
shut as (
    delete from cdls_open o using changed w where o.cdls_id = w.id and w.status in ('OK', 'ERROR', 'CANCELLED')),
-- `sent`: rows that Graph's answer has ended.
counted as (
    insert into campaign_delta (cdcs_id, cp_id, v8l_id, media, status, rows, sent)
    select w.cdcs_id, w.cp_id, w.v8l_id, w.media, m.status, sum(m.rows), sum(m.sent)
    from changed w cross join lateral (values
        (w.was, -1, 0),
        (w.status, 1, (w.status = 'OK' or w.status = 'ERROR' and w.error_kind not in ('expired', 'line', 'window', 'unreachable'))::integer)
    ) as m(status, rows, sent)
    where w.cp_id is not null
    group by w.cdcs_id, w.cp_id, w.v8l_id, w.media, m.status
    having sum(m.rows) <> 0 or sum(m.sent) <> 0)
