-- Reads the child rows of employees from HR and records whose they are. $1 employee ids. Returns the rows, each with the
-- employee whom it has left: HR is read as it is now, which may be later than what the reader has come to.
with seen as materialized (
    select r.source_id, r.row_key, r.employee_id
    from benefits.read_owned_rows($1::text[]) as r (source_id, row_key, employee_id)
),
kept as (
    insert into benefits.row_owner as w (source_id, row_key, employee_id)
    select s.source_id, s.row_key, s.employee_id from seen as s
    on conflict (source_id, row_key) do update
    set employee_id = excluded.employee_id
    where w.employee_id <> excluded.employee_id
)
select s.source_id, s.row_key, w.employee_id as left_behind
from seen as s
left join benefits.row_owner as w
    on w.source_id = s.source_id and w.row_key = s.row_key and w.employee_id <> s.employee_id
