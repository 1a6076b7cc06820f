-- A page of everyone who is synced. $1 after this id; $2 how many.
select e.employee_id
from benefits.enrolment as e
where e.employee_id > $1::text and e.transferred_to is null
order by e.employee_id
limit $2::bigint
