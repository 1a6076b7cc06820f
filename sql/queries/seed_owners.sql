-- Reads the child rows of employees from HR and records whose they are. $1 employee ids. Returns the rows.
insert into benefits.row_owner as w (source_id, row_key, employee_id)
select r.source_id, r.row_key, r.employee_id
from benefits.read_owned_rows($1::text[]) as r (source_id, row_key, employee_id)
on conflict (source_id, row_key) do update set employee_id = excluded.employee_id
returning w.source_id, w.row_key
