-- Budgets that Meta keeps for a line and for an app, as each worker has learnt them (docs/decisions, 59).

create table budget (
    -- 'line:<v8l_id>', or 'app:<meta_app_id>'; 'app:' is the app of lines that name none.
    scope      text not null,
    worker     text not null,
    -- The use in percent as last told, by Meta's rounding.
    percent    real not null,
    -- Calls a second that this worker may make; null: not limited.
    limited_to real,
    -- Calls of this worker in the window.
    calls      integer not null,
    -- The percent that a call costs, and the length of the window. Null: not known.
    cost       real not null,
    window_ms  integer,
    -- Until when Meta takes no calls.
    held_until text,
    heard_at   text not null,
    -- JSON: what only another worker needs.
    learned    text not null,
    updated_at text not null,
    primary key (scope, worker)
);

-- Persons who wrote to a line within 24 hours, as last counted: a line may send 200 messages for each in 24 hours.
create table budget_day (
    v8l_id     integer primary key,
    engaged    integer not null,
    counted_at text not null
);
