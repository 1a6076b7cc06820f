-- Marks synced employees whose dated rows begin or end on days up to today that have not been marked yet, and notes today.
-- One instance does it: the others find the day noted. The first start has nothing to make up.
with turn as materialized (
    select s.clock_on, benefits.today() as today from benefits.site as s for update
),
noted as (
    update benefits.site as s set clock_on = t.today from turn as t where s.clock_on is null or s.clock_on < t.today
),
due as materialized (
    select distinct e.employee_id
    from turn as t
    cross join lateral benefits.read_becoming(t.clock_on + 1, t.today) as b
    inner join benefits.enrolment as e on e.employee_id = b.employee_id and e.transferred_to is null
    where t.clock_on < t.today
),
mass as materialized (
    insert into benefits.mass_change (complete)
    select true
    where
        (select count(*) from due) > $1::integer
        and (select count(*) from due) > $2::float8 * (select count(*) from benefits.enrolment as e where e.linked)
    returning batch
)
insert into benefits.pending as p (employee_id, cause, bulk, changed_at, last_changed_at, batch)
select d.employee_id, 'time', count(*) over () > 100, clock_timestamp(), clock_timestamp(), (select x.batch from mass as x)
from due as d
order by d.employee_id
on conflict (employee_id) do update
set
    seq = p.seq + 1, batch = coalesce(excluded.batch, p.batch), ending = null, ending_kind = null,
    last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
returning p.employee_id
