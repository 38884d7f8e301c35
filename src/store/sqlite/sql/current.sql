-- Rows ?1 as they are, with the facts that their changes and claims depend on. Now ?2. The claim of the row's
-- next fence is its open one.
select c.cdls_id, c.fence, c.status, c.cdcs_id, c.v8l_id, c.dest, c.mdata, c.mtype <> 'text' as media, c.cp_id,
       c.error_code, c.error_subcode,
       exists (select 1 from cdls_open o where o.cdls_id = c.cdls_id) as stands_open,
       exists (select 1 from cd_v8_line l where l.v8l_id = c.v8l_id and l.cdcs_id = c.cdcs_id) as line_is_theirs,
       c.expires_at > ?2 and not exists (
           select 1 from campaign k where k.cdcs_id = c.cdcs_id and k.cp_id = c.cp_id and k.state <> 'running') as may_be_sent,
       k.worker, k.claim_no
from json_each(?1) j
cross join cdls c
left join claim_row r on r.cdls_id = c.cdls_id and r.fence = c.fence + 1
left join claim k on k.claim_id = r.claim_id
where c.cdls_id = j.value
