-- Whether the user of the broker has an exchange and a queue for submissions of its own, which the intake then declares
-- and consumes.

alter table broker_user add column submit_queue boolean not null default false;
