-- The first work of every flow in partitions ?1, lines that cannot send now (?2) left out where ?3: a loose
-- index scan, each step one look-up of the entry after the flow before. The NUL follows the campaign, as
-- SQLite seeks "at or after" and would walk over the equals. Campaigns that do not run are left out.
with recursive head(id) as (
    select (
        select n.work_id from work n indexed by work_flow
        order by n.partition_no, n.v8l_id, n.priority, n.media, n.campaign, n.first_id, n.work_id limit 1)
    union all
    select (
        select n.work_id from work n indexed by work_flow
        where (n.partition_no, n.v8l_id, n.priority, n.media, n.campaign)
            > (+w.partition_no, +w.v8l_id, +w.priority, +w.media, w.campaign || char(0))
        order by n.partition_no, n.v8l_id, n.priority, n.media, n.campaign, n.first_id, n.work_id limit 1)
    from head cross join work w
    where w.work_id = head.id
)
select w.work_id, w.first_id, w.v8l_id, w.priority, w.media, w.campaign
from head
cross join work w
where w.work_id = head.id
  and w.partition_no in (select value from json_each(?1))
  and not exists (
      select 1 from campaign k
      where w.campaign <> '' and k.cdcs_id = w.cdcs_id and k.cp_id = w.campaign and k.state <> 'running')
  and (not ?3 or exists (
      select 1 from cd_v8_line l join account a on a.cdcs_id = l.cdcs_id
      where l.v8l_id = w.v8l_id and l.v8l_active and a.cdcs_active and trim(coalesce(l.v8l_wa_api_key, '')) <> ''
        and (l.v8l_paused_until is null or l.v8l_paused_until <= ?2)))
