-- The end of one call, for a row without a campaign that only its worker has changed.
with changed as (
    update cdls_{range} c set
{set}
    from (select $4::integer as from_fence, $5::integer as to_fence, $6::text as status, $7::integer as status_code,
                 $8::text as message_id, $9::boolean as writes_error, $10::integer as error_code, $11::integer as error_subcode,
                 $12::text as error_kind, $13::text as error_message, $14::text as fbtrace_id, $15::integer as add_attempts,
                 $16::integer as add_tries, $17::integer as add_ambiguous, $18::integer as add_crashes,
                 $19::bigint as begun_ms, $20::bigint as next_ms, $21::boolean as done) w
    where c.cdls_id = $3 and c.fence = w.from_fence and c.status in ('PENDING', 'RETRY')
    returning c.cdls_id as id){ended}
select id from changed
