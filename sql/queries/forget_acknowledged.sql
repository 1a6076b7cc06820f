-- Accounts that the platform does not list: nothing is known of them any more, and the next delivery finds out.
-- $1 employees, sorted.
with forgotten as (
    update benefits.enrolment as e set acknowledged = null where e.employee_id = any ($1::text[]) and e.linked
)
insert into benefits.pending as p (employee_id, cause, bulk, changed_at, last_changed_at)
select m.employee_id, 'reconcile', true, clock_timestamp(), clock_timestamp()
from unnest($1::text[]) with ordinality as m (employee_id, n)
order by m.n
on conflict (employee_id) do update
set seq = p.seq + 1, last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
