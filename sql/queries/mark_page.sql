-- Marks a page of everyone who is synced. $1 after this id; $2 how many; $3 when; $4 cause; $5 the mass change they belong to,
-- which is judged whole. Returns the page's last id.
with page as materialized (
    select e.employee_id, e.linked
    from benefits.enrolment as e
    where e.employee_id > $1::text and e.transferred_to is null
    order by e.employee_id
    limit $2::bigint
),
marked as (
    insert into benefits.pending as p (employee_id, cause, bulk, changed_at, last_changed_at, batch)
    select g.employee_id, $4::text, true, $3::timestamptz, $3::timestamptz, case when g.linked then $5::bigint end
    from page as g
    order by g.employee_id
    on conflict (employee_id) do update
    set
        seq = p.seq + 1, batch = coalesce(excluded.batch, p.batch), ending = null, ending_kind = null,
        last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
)
select max(employee_id) from page
