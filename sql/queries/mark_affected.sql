-- Marks whom changed rows of a lookup table affect. $1 the rows' keys; $2 when they changed.
insert into benefits.pending as p (employee_id, cause, bulk, changed_at, last_changed_at)
select distinct a.employee_id, 'lookup', true, $2::timestamptz, $2::timestamptz
from benefits.read_affected_{source}($1::text[]) as a (employee_id)
inner join benefits.enrolment as e on e.employee_id = a.employee_id and e.transferred_to is null
order by a.employee_id
on conflict (employee_id) do update
set seq = p.seq + 1, last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
