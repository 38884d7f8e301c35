-- The rows of the commit with the mark $3, whose first row is of the account $1 and the line $2; $4 and $5
-- are all accounts and lines of the commit. Rows of one commit have one time of creation. Their ids were
-- given out a moment ago. Also: whether a statement that logs messages, begun before the first question ($6),
-- is still at work.
with first as materialized (
    select c.cdls_id, c.created_at from cdls c
    where c.cdcs_id = $1 and c.v8l_id = $2 and c.cdls_id > (select last_value from cdls_id_seq) - 1000000
      and c.commit_mark = $3
    order by c.cdls_id desc limit 1)
select now() as asked_at,
       coalesce((
           select array_agg(r.cdls_id order by r.cdls_id)
           from first f cross join unnest($4::bigint[], $5::bigint[]) as w(cdcs_id, v8l_id)
           cross join lateral (
               select c.cdls_id from cdls c
               where c.cdcs_id = w.cdcs_id and c.v8l_id = w.v8l_id and c.cdls_id >= f.cdls_id
                 and c.created_at = f.created_at) as r), '{}') as ids,
       exists (
           select from pg_stat_activity a
           where a.state = 'active' and a.pid <> pg_backend_pid() and a.query like '-- Logs %'
             and a.query_start <= coalesce($6::timestamptz, now())) as is_running
