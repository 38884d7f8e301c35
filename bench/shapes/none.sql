-- No statements: the CPU time that the driver itself takes, which is subtracted from that of each shape.

create function accept(
    bigint[], bigint[], text[], text[], text[], text[], text[], text[], text[], text[], timestamptz[], bigint[], text[], bigint[])
returns bigint[] language plpgsql as $$
begin
    return null;
end $$;

create function claim(bigint, bigint[], integer[], bigint[]) returns void language plpgsql as $$
begin
end $$;

create function outcome(
    bigint[], integer[], text[], text[], integer[], text[], timestamptz[], boolean[], boolean[], integer[], integer[], integer[],
    text[], bigint[], bigint[], bigint[])
returns void language plpgsql as $$
begin
end $$;
