-- How a line is connected to Meta, and the life of its token: Instagram Login, Unified Login, and tokens that end.

alter table cd_v8_line
    -- Null: by the token; one that begins with IGAA is of Instagram Login.
    add column v8l_graph            text collate "C" check (v8l_graph in ('facebook', 'instagram', 'unified')),
    -- Null: not known.
    add column v8l_pat_expires_at   timestamptz,
    -- Grows with each change of the token's text: a refreshed token is written only over the one that it came from.
    add column v8l_pat_version      bigint not null default 0,
    -- When the token was set or refreshed. Null: not known.
    add column v8l_pat_refreshed_at timestamptz,
    -- Earliest time of the next try to refresh, and the failure of the last one.
    add column v8l_pat_next_try_at  timestamptz,
    add column v8l_pat_error        text;

-- Another program has replaced the token: facts about the one before are none about this one. Statements of this program
-- change the version themselves.
create function cd_v8_line_token_replaced() returns trigger language plpgsql as $$
begin
    new.v8l_pat_version := old.v8l_pat_version + 1;
    new.v8l_pat_expires_at := null;
    new.v8l_pat_refreshed_at := null;
    new.v8l_pat_next_try_at := null;
    new.v8l_pat_error := null;
    return new;
end $$;

create trigger cd_v8_line_token_replaced before update of v8l_wa_api_key on cd_v8_line for each row
when (new.v8l_wa_api_key is distinct from old.v8l_wa_api_key and new.v8l_pat_version = old.v8l_pat_version)
execute function cd_v8_line_token_replaced();
