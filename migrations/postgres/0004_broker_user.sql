-- Which account a user of the broker sends for: the broker vouches for the user_id of what it delivers.
create table broker_user (
    broker_user text collate "C" primary key,
    cdcs_id     bigint not null references account,
    created_at  timestamptz not null default now()
);
