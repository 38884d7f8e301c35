-- Logs messages and adds their work. $14: ids that were allotted before, or NULL; $15: the mark of the
-- commit. The sort makes the sequence's numbers follow the order given.
-- lost_commit.sql finds this statement by its first word.
with logged as (
    insert into cdls (cdls_id, cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, next_at,
                      expires_at, waiter, commit_mark)
    select coalesce(s.cdls_id, nextval('cdls_id_seq')),
           s.cdcs_id, s.v8l_id, s.class, s.dest, s.mtype, s.mdata, s.mcaption, s.msg_id, s.cp_id, s.priority,
           case when s.send_at > now() then s.send_at end,
           coalesce(s.send_at, now()) + s.valid_ms * interval '1 millisecond', s.waiter,
           case when s.place = 1 then $15::bigint end
    from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::timestamptz[], $12::bigint[], $13::text[], $14::bigint[]) with ordinality
         as s(cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, send_at, valid_ms, waiter,
              cdls_id, place)
    order by s.place
    returning cdls_id, (v8l_id % 64)::smallint as partition_no, cdcs_id, v8l_id, priority, mtype <> 'text' as media, cp_id,
              coalesce(cp_id, '') as campaign, dest, next_at, expires_at),
queued as (
    insert into work (partition_no, cdcs_id, v8l_id, priority, media, campaign, first_id, ids, expires_at)
    select partition_no, cdcs_id, v8l_id, priority, media, campaign, min(cdls_id), array_agg(cdls_id order by cdls_id),
           min(expires_at)
    from (select *, (row_number() over (partition by cdcs_id, v8l_id, priority, media, campaign order by cdls_id) - 1) / 64
                    as part
          from logged where next_at is null) as l
    group by partition_no, cdcs_id, v8l_id, priority, media, campaign, part
    order by min(cdls_id)
    returning work_id, v8l_id, priority, media, campaign, ids)
