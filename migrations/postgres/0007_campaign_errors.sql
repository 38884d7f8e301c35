-- What is shown of campaigns beside the states of their rows: their errors, and since when each is known.

-- Rows that ended as ERROR, by error; an empty text stands for NULL. Kept like the counts by state: the statement that ends
-- rows adds to the one table, and a task folds that into the other. ERROR rows never change.
create table campaign_error_delta (
    delta_id bigint generated always as identity primary key,
    cdcs_id  bigint not null,
    cp_id    text collate "C" not null,
    code     text collate "C" not null,
    subcode  text collate "C" not null,
    kind     text collate "C" not null,
    rows     bigint not null,
    at       timestamptz not null default now()
);
create index campaign_error_delta_campaign on campaign_error_delta (cdcs_id, cp_id);

create table campaign_error (
    cdcs_id bigint not null,
    cp_id   text collate "C" not null,
    code    text collate "C" not null,
    subcode text collate "C" not null,
    kind    text collate "C" not null,
    rows    bigint not null,
    primary key (cdcs_id, cp_id, code, subcode, kind)
) with (fillfactor = 50);

-- Labels, and when each had its first message. A label is entered when its first counters are folded.
create table campaign_label (
    cdcs_id  bigint not null,
    cp_id    text collate "C" not null,
    first_at timestamptz not null,
    primary key (cdcs_id, cp_id)
);

-- What the log and the counters hold already.
insert into campaign_error (cdcs_id, cp_id, code, subcode, kind, rows)
select cdcs_id, cp_id, coalesce(error_code::text, ''), coalesce(error_subcode::text, ''), coalesce(error_kind, ''), count(*)
from cdls where exception is not null and exception = 'ERROR' and cp_id is not null
group by 1, 2, 3, 4, 5;
insert into campaign_label (cdcs_id, cp_id, first_at)
select t.cdcs_id, t.cp_id, coalesce((
    select c.created_at from cdls c where c.cdcs_id = t.cdcs_id and c.cp_id = t.cp_id and c.cp_id is not null
    order by c.cdls_id limit 1), now())
from (select distinct cdcs_id, cp_id from campaign_total) as t;
