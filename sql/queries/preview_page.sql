-- A page of employees for the preview. $1 after this id; $2 how many.
select k.employee_id
from benefits.employee as k
where k.gone_at is null and k.employee_id > $1::text
order by k.employee_id
limit $2::bigint
