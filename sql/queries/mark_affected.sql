-- Marks whom changed rows of a lookup table affect. $1 the rows' keys; $2 when they changed; $3 $4 the guard's minimum and
-- fraction, as in mark_employees.sql.
with affected as materialized (
    select distinct a.employee_id, e.linked
    from benefits.read_affected_{source}($1::text[]) as a (employee_id)
    inner join benefits.enrolment as e on e.employee_id = a.employee_id and e.transferred_to is null
),
mass as materialized (
    insert into benefits.mass_change (complete)
    select true
    where
        (select count(*) from affected) > $3::integer
        and (select count(*) from affected) > $4::float8 * (select count(*) from benefits.enrolment as e where e.linked)
    returning batch
)
insert into benefits.pending as p (employee_id, cause, bulk, changed_at, last_changed_at, batch)
select
    a.employee_id, 'lookup', true, $2::timestamptz, $2::timestamptz,
    case when a.linked then (select x.batch from mass as x) end
from affected as a
order by a.employee_id
on conflict (employee_id) do update
set
    seq = p.seq + 1, batch = coalesce(excluded.batch, p.batch), ending = null, ending_kind = null,
    last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
