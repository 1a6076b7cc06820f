-- A page of the employees with an account. $1 after this id; $2 how many; $3 linked before this (epoch seconds).
select e.employee_id, e.benefits_id, e.acknowledged is not null as is_acknowledged
from benefits.enrolment as e
where e.employee_id > $1::text and e.linked and e.transferred_to is null and e.last_synced_at < to_timestamp($3::float8)
order by e.employee_id
limit $2::bigint
