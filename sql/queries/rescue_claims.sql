-- Frees the claims of instances that are no more: their session-level advisory lock is free. $1 the lock's class.
-- Keys are compared so that no plan reads a whole table for each of the dead: see Session::connect_by_key.
with dead as materialized (
    select p.employee_id
    from benefits.pending as p
    where p.claim is not null and not exists (
        select
        from pg_locks as l
        where l.locktype = 'advisory' and l.classid = $1::oid and l.objid = p.claim::oid and l.objsubid = 2
            and l.database = (select d.oid from pg_database as d where d.datname = current_database())
    )
    order by p.employee_id
    for update of p skip locked
)
update benefits.pending as p set claim = null from dead as d where p.employee_id = any (array[d.employee_id])
