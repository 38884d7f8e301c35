-- Of receipts (number $1, account $2, line $3, recipient $4) those whose recipient has a message that was logged by $5 and has
-- no outcome yet, among the newest $6 rows of one range.
select u.n from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[]) as u(n, account, line, dest, at)
where exists (
    select from (
        select c.v8l_id, c.status, c.next_at, c.created_at from cdls_{range} c
        where c.cdcs_id = u.account and c.dest = u.dest order by c.cdls_id desc limit $6::bigint) as r
    where r.v8l_id = u.line and r.created_at <= u.at
      and (r.status in ('UNKNOWN', 'RETRY') or r.status = 'PENDING' and (r.next_at is null or r.next_at <= now())))
