-- What is to be changed, in order of id: rows are locked in that order everywhere.
wanted as materialized (
    select * from unnest(
        $8::bigint[], $9::integer[], $10::integer[], $11::boolean[], $12::text[], $13::integer[], $14::text[], $15::boolean[],
        $16::integer[], $17::integer[], $18::text[], $19::text[], $20::text[], $21::integer[], $22::integer[], $23::integer[],
        $24::integer[], $25::bigint[], $26::bigint[], $27::boolean[])
        as u(id, from_fence, to_fence, late, status, status_code, message_id, writes_error, error_code, error_subcode,
             error_kind, error_message, fbtrace_id, add_attempts, add_tries, add_ambiguous, add_crashes, begun_ms, next_ms,
             done)
    order by id)
