-- Which account a user of the broker sends for: the broker vouches for the user_id of what it delivers.
create table broker_user (
    broker_user text primary key,
    cdcs_id     integer not null references account,
    created_at  text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
