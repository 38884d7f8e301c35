-- What is shown of campaigns beside the states of their rows: their errors, and since when each is known.

-- Rows that ended as ERROR, by error; an empty text stands for NULL. The transaction that ends rows adds to it. ERROR rows
-- never change.
create table campaign_error (
    cdcs_id integer not null,
    cp_id   text not null,
    code    text not null,
    subcode text not null,
    kind    text not null,
    rows    integer not null,
    primary key (cdcs_id, cp_id, code, subcode, kind)
) without rowid;

-- Labels, and when each had its first message. A label is entered when its first counters are folded.
create table campaign_label (
    cdcs_id  integer not null,
    cp_id    text not null,
    first_at text not null,
    primary key (cdcs_id, cp_id)
) without rowid;

-- What the log and the counters hold already.
insert into campaign_error (cdcs_id, cp_id, code, subcode, kind, rows)
select cdcs_id, cp_id, coalesce(error_code, ''), coalesce(error_subcode, ''), coalesce(error_kind, ''), count(*)
from cdls where exception is not null and exception = 'ERROR' and cp_id is not null
group by 1, 2, 3, 4, 5;
insert into campaign_label (cdcs_id, cp_id, first_at)
select t.cdcs_id, t.cp_id, coalesce((
    select c.created_at from cdls c where c.cdcs_id = t.cdcs_id and c.cp_id = t.cp_id and c.cp_id is not null
    order by c.cdls_id limit 1), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
from (select distinct cdcs_id, cp_id from campaign_total) as t;
