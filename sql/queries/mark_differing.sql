-- Marks employees whom a comparison found out of step. $1 ids, sorted.
insert into benefits.pending as p (employee_id, cause, bulk, changed_at, last_changed_at)
select m.employee_id, 'reconcile', true, clock_timestamp(), clock_timestamp()
from unnest($1::text[]) with ordinality as m (employee_id, n)
inner join benefits.enrolment as e on e.employee_id = m.employee_id and e.transferred_to is null
order by m.n
on conflict (employee_id) do update
set seq = p.seq + 1, last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
