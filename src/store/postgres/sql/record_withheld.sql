
          -- An inbound event that came after the row was read keeps it waiting.
          and (w.error_kind is distinct from 'window' or exists (
              select from cd_recipient r where r.v8l_id = c.v8l_id and r.dest = c.dest and r.window_until <= now()))
          and (w.error_kind is distinct from 'unreachable' or exists (
              select from cd_recipient r where r.v8l_id = c.v8l_id and r.dest = c.dest and r.unreachable_since is not null))
