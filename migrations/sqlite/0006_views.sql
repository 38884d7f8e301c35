-- Each message that has not ended, with its state of this moment: SENDING where a worker calls Graph for it, with the attempt
-- and the time of that call. `waits_for` is the reason why it is not sent now.
create view cdls_now as
    select c.cdls_id, c.cdcs_id, c.v8l_id, c.class, c.dest, c.mtype, c.msg_id, c.cp_id, c.priority,
           case when s.cdls_id is null then c.status else 'SENDING' end as status,
           c.attempts + (s.cdls_id is not null) as attempts, c.ambiguous_attempts,
           coalesce(o.due_at, c.next_at) as next_at, c.expires_at, c.created_at,
           coalesce(h.made_at, c.sent_at) as sent_at, h.worker as held_by,
           case when s.cdls_id is not null then 'call'
                when c.status = 'UNKNOWN' then 'operator'
                when o.kind = 'schedule' then 'schedule'
                when o.kind = 'retry' then 'retry'
                when not coalesce(a.cdcs_active, 0) then 'account inactive'
                when l.v8l_id is null or not l.v8l_active then 'line inactive'
                when trim(coalesce(l.v8l_wa_api_key, '')) = '' then 'no page token'
                when l.v8l_paused_until > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') then 'line paused'
                when k.state in ('paused', 'cancelled') then 'campaign ' || k.state
                else 'turn' end as waits_for
    from (select i.value as cdls_id from work w cross join json_each(w.ids) i
          union select cdls_id from cdls_open
          union select cdls_id from claim_row) q
    join cdls c on c.cdls_id = q.cdls_id
    left join cdls_open o on o.cdls_id = c.cdls_id
    left join claim_row s on s.cdls_id = c.cdls_id and s.fence > c.fence and c.status <> 'UNKNOWN'
    left join claim h on h.claim_id = s.claim_id
    left join cd_v8_line l on l.v8l_id = c.v8l_id
    left join account a on a.cdcs_id = c.cdcs_id
    left join campaign k on k.cdcs_id = c.cdcs_id and k.cp_id = c.cp_id
    where c.status in ('PENDING', 'RETRY', 'UNKNOWN');
