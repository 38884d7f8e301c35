-- Rows that an operator settled and nobody was told of yet: a process that sends tells producers and listeners.
create table settled (
    cdls_id integer primary key,
    status  text not null
);
