-- Looks in HR for a page of the employees whom the ledger knows, and records who has gone. $1 after this id; $2 how many;
-- $3 only count.
with page as materialized (
    select k.employee_id
    from benefits.employee as k
    where k.employee_id > $1::text and k.gone_at is null
    order by k.employee_id
    limit $2::bigint
),
there as materialized (
    select f.employee_id
    from benefits.find_in_roster((select coalesce(array_agg(g.employee_id), '{}') from page as g)) as f (employee_id)
),
gone as materialized (
    select g.employee_id
    from page as g
    where not exists (select from there as t where t.employee_id = g.employee_id)
),
recorded as (
    update benefits.employee as k
    set gone_at = clock_timestamp()
    from gone as g
    where k.employee_id = g.employee_id and not $3::boolean
)
select (select max(g.employee_id) from page as g) as last_id, (select count(*) from gone) as gone
