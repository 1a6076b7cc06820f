-- What was acknowledged for employees and what HR has now, in one snapshot. $1 ids.
select
    e.employee_id, e.linked, e.acknowledged, e.unknown_fields, coalesce(e.outcome = 'failed', false) as failed, e.refused,
    r.*
from unnest($1::text[]) as w (employee_id)
inner join benefits.enrolment as e on e.employee_id = w.employee_id
left join benefits.read_records($1::text[]) as r on r.employee_id = w.employee_id
order by e.employee_id
