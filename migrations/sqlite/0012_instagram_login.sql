-- How a line is connected to Meta, and the life of its token: Instagram Login, Unified Login, and tokens that end.

-- Null: by the token; one that begins with IGAA is of Instagram Login.
alter table cd_v8_line add column v8l_graph text check (v8l_graph in ('facebook', 'instagram', 'unified'));
-- Null: not known.
alter table cd_v8_line add column v8l_pat_expires_at text;
-- Grows with each change of the token's text: a refreshed token is written only over the one that it came from.
alter table cd_v8_line add column v8l_pat_version integer not null default 0;
-- When the token was set or refreshed. Null: not known.
alter table cd_v8_line add column v8l_pat_refreshed_at text;
-- Earliest time of the next try to refresh, and the failure of the last one.
alter table cd_v8_line add column v8l_pat_next_try_at text;
alter table cd_v8_line add column v8l_pat_error text;

-- Another program has replaced the token: facts about the one before are none about this one. Statements of this program
-- change the version themselves.
create trigger cd_v8_line_token_replaced after update of v8l_wa_api_key on cd_v8_line for each row
when new.v8l_wa_api_key is not old.v8l_wa_api_key and new.v8l_pat_version = old.v8l_pat_version
begin
    update cd_v8_line set v8l_pat_version = old.v8l_pat_version + 1, v8l_pat_expires_at = null,
        v8l_pat_refreshed_at = null, v8l_pat_next_try_at = null, v8l_pat_error = null
    where v8l_id = new.v8l_id;
end;
