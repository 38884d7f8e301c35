-- The rows $1 of one range that have not ended, by status, with the age of the oldest. Open claims look their
-- rows up by id: a join of all rows with all claims grows with the product of both.
with sending as materialized (
    select distinct c.cdls_id, c.status from cdls_sending u
    join cdls_{range} c on c.cdls_id = u.cdls_id and u.fence > c.fence and c.status in ('PENDING', 'RETRY')
    where u.cdls_id = any($1::bigint[])),
counted as (
    select c.status, count(*) as rows, (extract(epoch from now() - min(c.sent_at)) * 1000)::bigint as oldest_ms
    from cdls_{range} c
    where c.cdls_id = any($1::bigint[]) and c.status in ('PENDING', 'RETRY', 'UNKNOWN') group by c.status)
select t.status, t.rows - (select count(*) from sending s where s.status = t.status), t.oldest_ms from counted t
union all
select 'SENDING', count(*), null from sending having count(*) > 0
