-- Reads the child rows of employees from HR and puts right whose they are; writes only what differs. $1 employee ids.
-- Returns how many rows were corrected, and the employees whom a row has left.
with found as materialized (
    select r.source_id, r.row_key, r.employee_id from benefits.read_owned_rows($1::text[]) as r
),
left_behind as materialized (
    select w.employee_id
    from benefits.row_owner as w
    inner join found as f on f.source_id = w.source_id and f.row_key = w.row_key and f.employee_id <> w.employee_id
),
stale as (
    delete from benefits.row_owner as w
    where w.employee_id = any ($1::text[]) and not exists (
        select from found as f where f.source_id = w.source_id and f.row_key = w.row_key
    )
),
corrected as (
    insert into benefits.row_owner as w (source_id, row_key, employee_id)
    select f.source_id, f.row_key, f.employee_id
    from found as f
    where not exists (
        select from benefits.row_owner as o
        where o.source_id = f.source_id and o.row_key = f.row_key and o.employee_id = f.employee_id
    )
    order by f.source_id, f.row_key
    on conflict (source_id, row_key) do update set employee_id = excluded.employee_id
    returning 1
)
select (select count(*) from corrected) as corrected, array(select distinct l.employee_id from left_behind as l) as left_behind
