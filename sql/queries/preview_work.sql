-- What a preview needs of employees, records included, in one snapshot. Nothing is claimed. $1 ids.
select
    w.employee_id, e.employee_id is not null and e.transferred_to is null as enrolled, e.benefits_id,
    coalesce(e.linked, false) as linked, e.acknowledged,
    coalesce(e.unknown_fields, 0) | coalesce(p.intent_fields, 0) as unknown_fields, coalesce(p.in_full, false) as in_full,
    r.*
from unnest($1::text[]) with ordinality as w (employee_id, n)
left join benefits.enrolment as e on e.employee_id = w.employee_id
left join benefits.pending as p on p.employee_id = w.employee_id
left join benefits.read_records($1::text[]) as r on r.employee_id = w.employee_id
order by w.n
