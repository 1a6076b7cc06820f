-- Employees that HR has now. $1 ids, sorted.
insert into benefits.employee as k (employee_id)
select h.employee_id from unnest($1::text[]) with ordinality as h (employee_id, n) order by h.n
on conflict (employee_id) do update set gone_at = null where k.gone_at is not null
