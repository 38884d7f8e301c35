-- Budgets that Meta keeps for a line and for an app, as each worker has learnt them (docs/decisions, 59).

create table budget (
    -- 'line:<v8l_id>', or 'app:<meta_app_id>'; 'app:' is the app of lines that name none.
    scope      text collate "C" not null,
    worker     text collate "C" not null,
    -- The use in percent as last told, by Meta's rounding.
    percent    double precision not null,
    -- Calls a second that this worker may make; null: not limited.
    limited_to double precision,
    -- Calls of this worker in the window.
    calls      bigint not null,
    -- The percent that a call costs, and the length of the window. Null: not known.
    cost       double precision not null,
    window_ms  bigint,
    -- Until when Meta takes no calls.
    held_until timestamptz,
    heard_at   timestamptz not null,
    -- JSON: what only another worker needs.
    learned    text not null,
    updated_at timestamptz not null default now(),
    primary key (scope, worker)
) with (fillfactor = 70);

-- Persons who wrote to a line within 24 hours, as last counted: a line may send 200 messages for each in 24 hours.
create table budget_day (
    v8l_id     bigint primary key,
    engaged    bigint not null,
    counted_at timestamptz not null default now()
) with (fillfactor = 70);
