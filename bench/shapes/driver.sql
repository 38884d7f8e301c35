-- Plays messages through the three functions that a shape defines: accept, claim, outcome. One transaction for each batch of
-- each of them, as a program would send them. The statements in the functions are planned once, like prepared statements.

-- CPU time of this session's server process in microseconds: utime and stime of /proc/self/stat.
create function cpu_us() returns bigint language sql volatile as $$
    select (f[12]::bigint + f[13]::bigint) * 10000
    from (select string_to_array(regexp_replace(pg_read_file('/proc/self/stat'), '^.*\) ', ''), ' ') as f) s
$$;

-- A message is claimed when 256 others were accepted after it, and its outcome is written when 256 others were claimed after
-- it. Batches are in order of id: all messages of a page of the log have their outcome in one transaction or two, which is
-- the worst case for heap-only updates.
create procedure play(messages bigint, batch integer, lines integer) language plpgsql as $$
declare
    batches constant bigint := messages / batch;
    lag constant integer := 256 / batch;
    -- What is the same for each batch.
    classes constant text[] := array_fill('messenger'::text, array[batch]);
    kinds constant text[] := array_fill('text'::text, array[batch]);
    lanes constant text[] := array_fill('bulk'::text, array[batch]);
    bodies constant text[] := array_fill(repeat('0123456789', 20), array[batch]);
    valid_ms constant bigint[] := array_fill(86400000::bigint, array[batch]);
    no_text constant text[] := array_fill(null::text, array[batch]);
    no_number constant bigint[] := array_fill(null::bigint, array[batch]);
    no_integer constant integer[] := array_fill(null::integer, array[batch]);
    no_time constant timestamptz[] := array_fill(null::timestamptz, array[batch]);
    zeros constant integer[] := array_fill(0, array[batch]);
    ones constant integer[] := array_fill(1, array[batch]);
    deadlines constant bigint[] := array_fill(30000::bigint, array[batch]);
    leaves constant text[] := array_fill('SENDING UNKNOWN'::text, array[batch]);
    ok constant text[] := array_fill('OK'::text, array[batch]);
    ok_code constant integer[] := array_fill(200, array[batch]);
    yes constant boolean[] := array_fill(true, array[batch]);
    no constant boolean[] := array_fill(false, array[batch]);
    line_of bigint[];
    account_of bigint[];
    dest_of text[];
    ids bigint[];
    message_ids text[];
    sent_at timestamptz[];
    work_first bigint[] := array_fill(0::bigint, array[2 * lag + 2]);
    work_last bigint[] := work_first;
    made bigint[];
    slot integer;
    done bigint;
begin
    for step in 0 .. batches + 2 * lag - 1 loop
        if step < batches then
            select array_agg(line), array_agg((line - 1) / 20 + 1), array_agg((4000000000000000 + abs(hashint8(-i)) % 100000)::text)
            into line_of, account_of, dest_of
            from (select i, 1 + abs(hashint8(i)::bigint) % lines as line
                  from generate_series(step * batch + 1, (step + 1) * batch) i) m;
            made := accept(account_of, line_of, classes, dest_of, kinds, bodies, no_text, no_text, no_text, lanes, no_time,
                           valid_ms, no_text, no_number);
            commit;
            slot := step % (2 * lag + 2) + 1;
            work_first[slot] := made[1];
            work_last[slot] := made[2];
        end if;
        if step >= lag and step - lag < batches then
            done := step - lag;
            ids := array(select generate_series(done * batch + 1, (done + 1) * batch));
            perform claim(done, ids, zeros, deadlines);
            commit;
        end if;
        if step >= 2 * lag then
            done := step - 2 * lag;
            ids := array(select generate_series(done * batch + 1, (done + 1) * batch));
            message_ids := array(select 'm_' || md5(i::text) || md5((-i)::text)
                                 from generate_series(done * batch + 1, (done + 1) * batch) i);
            sent_at := array_fill(clock_timestamp(), array[batch]);
            -- The claim and the work of the batch before have ended by now.
            slot := (done + 2 * lag + 1) % (2 * lag + 2) + 1;
            made := array(select generate_series(work_first[slot], work_last[slot]));
            perform outcome(ids, ones, leaves, ok, ok_code, message_ids, sent_at, no, yes, ones, zeros, no_integer, no_text,
                            no_number, array[done - 1], made);
            commit;
        end if;
    end loop;
end $$;
