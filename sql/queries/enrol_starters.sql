-- Enrols employees whose starter flag is up. $1 ids, sorted; $2 the platform; $3 the commit's time.
with starter as materialized (
    select s.employee_id
    from unnest($1::text[]) with ordinality as s (employee_id, n)
    where not exists (
        select from benefits.employee as k where k.employee_id = s.employee_id and k.starter_baseline
    )
    order by s.n
),
known as (
    insert into benefits.employee (employee_id) select s.employee_id from starter as s on conflict do nothing
),
enrolled as (
    insert into benefits.enrolment (employee_id, platform_id, requested_by)
    select s.employee_id, $2::text, 'starter flag' from starter as s
    on conflict (employee_id) do nothing
    returning employee_id
)
insert into benefits.pending as p
    (employee_id, cause, bulk, in_full, requested_by, changed_at, last_changed_at)
select
    n.employee_id, 'starter', count(*) over () > 100, true, 'starter flag', $3::timestamptz, $3::timestamptz
from enrolled as n
order by n.employee_id
on conflict (employee_id) do update
set seq = p.seq + 1, last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
returning p.employee_id
