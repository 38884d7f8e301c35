-- Work by number ?1, each with its ready rows; a row of NULLs for each row that is not. Work of campaigns
-- that do not run is left out.
select w.work_id, w.first_id, w.priority as w_priority, w.v8l_id as w_v8l_id, w.media as w_media, w.campaign as w_campaign,
       c.cdls_id, c.v8l_id, c.cdcs_id, c.priority, c.mtype, c.cp_id, c.dest, c.mdata, c.fence, c.attempts, c.tries,
       c.expires_at, c.waiter
from json_each(?1) j
cross join work w
cross join json_each(w.ids) i
left join cdls c on c.cdls_id = i.value and (
    c.status = 'PENDING'
    or (c.status = 'RETRY' and w.again and not exists (select 1 from cdls_open o where o.cdls_id = c.cdls_id)))
where w.work_id = j.value
  and not exists (
      select 1 from campaign k
      where w.campaign <> '' and k.cdcs_id = w.cdcs_id and k.cp_id = w.campaign and k.state <> 'running')
