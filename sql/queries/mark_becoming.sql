-- Marks synced employees whose dated rows begin or end on days up to today, or at instants up to now, that have not been
-- marked yet, and notes both. One instance does it: the others find it noted. The first start has nothing to make up.
-- $1 $2 the guard's minimum and fraction.
with turn as materialized (
    select s.clock_on, s.clock_at, s.has_instants, benefits.today() as today, clock_timestamp() as now
    from benefits.site as s
    for update
),
noted as (
    update benefits.site as s
    set clock_on = greatest(s.clock_on, t.today), clock_at = case when t.has_instants then t.now else s.clock_at end
    from turn as t
),
becoming as (
    select b.employee_id
    from turn as t cross join lateral benefits.read_becoming(t.clock_on + 1, t.today) as b
    where t.clock_on < t.today
    union
    select b.employee_id
    from turn as t cross join lateral benefits.read_instants(t.clock_at, t.now) as b
    where t.has_instants and t.clock_at < t.now
),
due as materialized (
    select e.employee_id
    from becoming as b
    inner join benefits.enrolment as e on e.employee_id = b.employee_id and e.transferred_to is null
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
