-- The rows to be changed, in order of id: every statement locks rows in that order.
wanted as materialized (
    select * from unnest(
        $9::bigint[], $10::integer[], $11::integer[], $12::boolean[], $13::text[], $14::integer[], $15::text[], $16::boolean[],
        $17::integer[], $18::integer[], $19::text[], $20::text[], $21::text[], $22::integer[], $23::integer[], $24::integer[],
        $25::integer[], $26::bigint[], $27::bigint[], $28::boolean[])
        as u(id, from_fence, to_fence, late, status, status_code, message_id, writes_error, error_code, error_subcode,
             error_kind, error_message, fbtrace_id, add_attempts, add_tries, add_ambiguous, add_crashes, begun_ms, next_ms,
             done)
    order by id)
