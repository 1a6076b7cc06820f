-- Records whose child rows are; returns the employees whom a row has left. $1 sources, $2 row keys, $3 employees, sorted.
with own as materialized (
    select o.source_id, o.row_key, o.employee_id
    from unnest($1::integer[], $2::text[], $3::text[]) as o (source_id, row_key, employee_id)
    where exists (select from benefits.enrolment as e where e.employee_id = o.employee_id)
),
left_behind as materialized (
    select w.employee_id
    from benefits.row_owner as w
    inner join own as o on o.source_id = w.source_id and o.row_key = w.row_key and o.employee_id <> w.employee_id
),
kept as (
    insert into benefits.row_owner as w (source_id, row_key, employee_id)
    select o.source_id, o.row_key, o.employee_id from own as o
    on conflict (source_id, row_key) do update
    set employee_id = excluded.employee_id
    where w.employee_id <> excluded.employee_id
)
select distinct employee_id from left_behind
