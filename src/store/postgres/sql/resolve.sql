-- Settles rows $1 that are UNKNOWN and selected ($2 line, $3 campaign, $4 code, $5 milliseconds since they
-- were created) as $6, at most $7 of them; $8 is Graph's id of the message. The rows are locked in order of
-- id, as the recorder does; the guard is in that look-up, so a row settled meanwhile matches nothing.
with picked as materialized (
    select c.cdls_id, c.cdcs_id, c.v8l_id, c.cp_id, c.mtype <> 'text' as media from cdls_{range} c
    where c.cdls_id = any($1::bigint[]) and c.status = 'UNKNOWN'
      and ($2::bigint is null or c.v8l_id = $2)
      and ($3::text is null or c.cp_id = $3) and ($4::integer is null or c.error_code = $4)
      and ($5::bigint is null or c.created_at >= now() - $5 * interval '1 millisecond')
      and ($6 <> 'RETRY' or (c.expires_at > now() and (c.cp_id is null or not exists (
          select from campaign k where k.cdcs_id = c.cdcs_id and k.cp_id = c.cp_id and k.state = 'cancelled'))))
    order by c.cdls_id limit $7 for update of c),
resolved as (
    update cdls_{range} c set
        status = $6,
        message_id = coalesce($8, c.message_id),
        error_code = case when $6 <> 'OK' then c.error_code end,
        error_subcode = case when $6 <> 'OK' then c.error_subcode end,
        error_message = case when $6 <> 'OK' then c.error_message end,
        fbtrace_id = case when $6 <> 'OK' then c.fbtrace_id end,
        error_kind = case when $6 = 'ERROR' then 'resolved' end,
        tries = case when $6 = 'RETRY' then 0 else c.tries end,
        next_at = case when $6 = 'RETRY' then now() end,
        done_at = case when $6 <> 'RETRY' then now() end
    from picked p where c.cdls_id = p.cdls_id
    returning c.cdls_id, c.error_code, c.error_subcode),
-- The owner of the line makes the row ready, like any other retry.
due as (
    update cdls_open o set kind = 'retry', due_at = now()
    from picked p where o.cdls_id = p.cdls_id and $6 = 'RETRY'),
ended as (
    delete from cdls_open o using picked p where o.cdls_id = p.cdls_id and $6 <> 'RETRY'),
noted as (
    insert into settled (cdls_id, status) select cdls_id, $6 from resolved
    on conflict (cdls_id) do update set status = excluded.status),
counted as (
    insert into campaign_delta (cdcs_id, cp_id, v8l_id, media, status, rows)
    select p.cdcs_id, p.cp_id, p.v8l_id, p.media, m.status, m.sign * count(*)
    from picked p cross join (values ('UNKNOWN', -1), ($6, 1)) as m(status, sign)
    where p.cp_id is not null
    group by p.cdcs_id, p.cp_id, p.v8l_id, p.media, m.status, m.sign),
erred as (
    insert into campaign_error_delta (cdcs_id, cp_id, code, subcode, kind, rows)
    select p.cdcs_id, p.cp_id, coalesce(r.error_code::text, ''), coalesce(r.error_subcode::text, ''), 'resolved', count(*)
    from picked p join resolved r on r.cdls_id = p.cdls_id
    where $6 = 'ERROR' and p.cp_id is not null
    group by 1, 2, 3, 4)
select cdls_id from resolved
