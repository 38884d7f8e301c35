-- Receipts, written into the rows of one range: number $1, account $2, line $3, recipient $4, Graph's id $5 or watermark
-- $6, time $7, whether read $8. The newest $9 rows of a recipient are looked at; a look for an id ends where it is found. The
-- earliest time counts. Rows are locked in order of id, as the recorder does.
with told as materialized (
    select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
        $8::boolean[]) as u(n, account, line, dest, message_id, up_to, at, is_read)),
found as materialized (
    select t.n, t.at, t.is_read, c.cdls_id
    from told t cross join lateral (
        select r.cdls_id from (
            select c.cdls_id, c.v8l_id, c.status, c.message_id, c.sent_at, c.delivered_at, c.read_at from cdls_{range} c
            where c.cdcs_id = t.account and c.dest = t.dest order by c.cdls_id desc limit $9::bigint) as r
        where r.v8l_id = t.line and r.status = 'OK'
          and (r.message_id = t.message_id
               or r.sent_at <= t.up_to
                  and (r.delivered_at is null or r.delivered_at > t.at or t.is_read and (r.read_at is null or r.read_at > t.at)))
        limit case when t.message_id is null then $9::bigint else 1 end) as c),
due as materialized (
    select cdls_id, min(at) as delivered_at, min(at) filter (where is_read) as read_at
    from found group by cdls_id order by cdls_id),
locked as materialized (
    select d.*, c.* from due d cross join lateral (
        select c.delivered_at as had_delivered_at, c.read_at as had_read_at, c.cdcs_id, c.v8l_id, c.cp_id,
               c.mtype <> 'text' as media
        from cdls_{range} c
        where c.cdls_id = d.cdls_id and c.status = 'OK'
          and (c.delivered_at is null or c.delivered_at > d.delivered_at
               or d.read_at is not null and (c.read_at is null or c.read_at > d.read_at))
        for update) as c),
changed as (
    update cdls_{range} c set
        delivered_at = least(c.delivered_at, l.delivered_at),
        read_at = least(c.read_at, l.read_at)
    from locked l where c.cdls_id = l.cdls_id),
counted as (
    insert into campaign_delta (cdcs_id, cp_id, v8l_id, media, status, rows)
    select l.cdcs_id, l.cp_id, l.v8l_id, l.media, m.status, count(*)
    from locked l cross join lateral (values
        ('DELIVERED', l.had_delivered_at is null),
        ('READ', l.had_read_at is null and l.read_at is not null)) as m(status, is_new)
    where l.cp_id is not null and m.is_new
    group by l.cdcs_id, l.cp_id, l.v8l_id, l.media, m.status)
select distinct n, null::bigint as cdls_id, null::timestamptz as delivered_at, null::timestamptz as read_at from found
union all
select null, l.cdls_id, case when l.had_delivered_at is null then l.delivered_at end,
       case when l.had_read_at is null then l.read_at end
from locked l where l.had_delivered_at is null or l.had_read_at is null and l.read_at is not null
