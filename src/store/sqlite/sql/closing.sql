-- Waiting messages of a flow (?1 partition, ?2 line, ?3 lane, ?4 media, ?5 campaign; account ?6), behind the id ?7, whose
-- recipients' windows close by ?8. Recipients behind ?9 and ?10 (end of the window, recipient), at most ?11, and ?12
-- messages in all. Now ?13. A recipient without a message is a row with NULLs.
select closing.dest as k_dest, closing.window_until,
       c.cdls_id, c.v8l_id, c.cdcs_id, c.priority, c.mtype, c.cp_id, c.dest, c.mdata, c.fence, c.attempts, c.tries,
       c.expires_at, c.waiter,
       (select near.work_id from (
            select w.work_id, w.ids from work w indexed by work_flow
            where w.partition_no = ?1 and w.v8l_id = ?2 and w.priority = ?3 and w.media = ?4 and w.campaign = ?5
              and w.first_id <= c.cdls_id
            order by w.first_id desc, w.work_id desc limit 16) near
        where exists (select 1 from json_each(near.ids) i where i.value = c.cdls_id) limit 1) as work_id
from (
    select r.dest, r.window_until from cd_recipient r indexed by cd_recipient_window
    where r.v8l_id = ?2 and r.window_until > ?13 and r.window_until <= ?8 and (r.window_until, r.dest) > (?9, ?10)
      and r.unreachable_since is null
    order by r.window_until, r.dest limit ?11) closing
left join cdls c indexed by cdls_dest
    on c.cdcs_id = ?6 and c.dest = closing.dest and c.cdls_id > ?7 and c.v8l_id = ?2 and c.priority = ?3 and c.status = 'PENDING'
    and (c.mtype <> 'text') = ?4 and coalesce(c.cp_id, '') = ?5
    and (?5 = '' or not exists (
        select 1 from campaign p where p.cdcs_id = ?6 and p.cp_id = ?5 and p.state <> 'running'))
order by closing.window_until, closing.dest, c.cdls_id limit ?12
