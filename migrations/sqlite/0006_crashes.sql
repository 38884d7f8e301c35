-- Workers that died inside a call of this row: a row that takes three with it is ERROR `poison`.
alter table cdls add column crashes integer not null default 0;
