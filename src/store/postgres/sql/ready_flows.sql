-- A loose scan of the index `work_flow`, one probe a flow, however much work the flow has. With $2 a line
-- that cannot send costs one probe: the next probe goes behind all of its flows ('~' sorts behind every
-- lane). `offset 0` makes the probe a look-up; the planner would read all lines first.
with recursive flow as (
    select p.partition_no, w.*, false as is_skipped
    from unnest($1::smallint[]) as p(partition_no) cross join lateral (
        select 0::bigint as v8l_id, ''::text collate "C" as priority, false as media, ''::text collate "C" as campaign,
               0::bigint as first_id, 0::bigint as work_id, 0::bigint as cdcs_id) as w
    union all
    select flow.partition_no, w.*,
           case when not $2 then false
                when w.v8l_id = flow.v8l_id then flow.is_skipped
                else not exists (
                    select from cd_v8_line l
                    where l.v8l_id = w.v8l_id and l.v8l_active
                      and (select a.cdcs_active from account a where a.cdcs_id = l.cdcs_id)
                      and coalesce(btrim(l.v8l_wa_api_key), '') <> ''
                      and (l.v8l_paused_until is null or l.v8l_paused_until <= now())
                    offset 0) end
    from flow cross join lateral (
        select v8l_id, priority, media, campaign, first_id, work_id, cdcs_id from work w
        where w.partition_no = flow.partition_no
          and (w.v8l_id, w.priority, w.media, w.campaign)
            > (flow.v8l_id, case when flow.is_skipped then '~' else flow.priority end, flow.media, flow.campaign)
        order by w.v8l_id, w.priority, w.media, w.campaign, w.first_id, w.work_id limit 1) as w)
select v8l_id, priority, media, campaign, first_id, work_id from flow
where work_id > 0 and not is_skipped
  and (campaign = '' or not exists (
      select from campaign p where p.cdcs_id = flow.cdcs_id and p.cp_id = flow.campaign and p.state <> 'running'))
