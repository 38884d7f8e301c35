-- Ends the rows $1 of one range, of account $2 (NULL: any), that wait for their turn or for a time. Rows with an open claim are
-- on their way; a row that another transaction has locked is being changed: both are left alone. No claim is made meanwhile.
with sending as materialized (
    select u.cdls_id, max(u.fence) as fence from cdls_sending u where u.cdls_id = any($1::bigint[]) group by u.cdls_id),
picked as materialized (
    select c.cdls_id, c.status as was, c.cdcs_id, c.v8l_id, c.cp_id, c.mtype <> 'text' as media from cdls_{range} c
    where c.cdls_id = any($1::bigint[]) and c.status in ('PENDING', 'RETRY') and ($2::bigint is null or c.cdcs_id = $2)
      and not exists (select from sending s where s.cdls_id = c.cdls_id and s.fence > c.fence)
    order by c.cdls_id for update of c skip locked),
cancelled as (
    update cdls_{range} c set status = 'CANCELLED', next_at = null, done_at = now()
    from picked p where c.cdls_id = p.cdls_id
    returning c.cdls_id),
shut as (
    delete from cdls_open o using picked p where o.cdls_id = p.cdls_id),
noted as (
    insert into settled (cdls_id, status) select cdls_id, 'CANCELLED' from cancelled
    on conflict (cdls_id) do update set status = excluded.status),
counted as (
    insert into campaign_delta (cdcs_id, cp_id, v8l_id, media, status, rows)
    select p.cdcs_id, p.cp_id, p.v8l_id, p.media, m.status, sum(m.rows)
    from picked p cross join lateral (values (p.was, -1), ('CANCELLED', 1)) as m(status, rows)
    where p.cp_id is not null
    group by p.cdcs_id, p.cp_id, p.v8l_id, p.media, m.status)
select cdls_id from cancelled
