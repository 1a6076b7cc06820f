-- Marks employees in hand after all, with the write that may be on its way. $1 claim token; arrays, in the order of ids so
-- that two instances lock in one order: $2 id, $3 $4 first and last commit time, $5 the write's version (null: nothing was
-- sent), $6 its fields, $7 its body's hash, $8 what was sent is unknown: everything is sent, $9 the mass change they came with.
-- Returns the mark and whose claim it carries; who is not enrolled any more is missing.
-- Keys are compared so that no plan reads a whole table: see Session::connect_by_key.
with m as materialized (
    select *
    from unnest(
        $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::bytea[], $8::boolean[],
        $9::bigint[]
    ) as m (employee_id, changed_at, last_changed_at, version, fields, hash, in_full, batch)
),
-- Incomplete until all of it is delivered or marked. One that was completed without us (by the reader after ours) may have
-- been judged and forgotten, and would then never be judged again.
mass as materialized (
    select c.batch from benefits.mass_change as c where c.batch = any ($9::bigint[]) and not c.complete for share
)
insert into benefits.pending as p
    (
        employee_id, cause, changed_at, last_changed_at, claim, intent_kind, intent_version, intent_fields, intent_hash,
        in_full, bulk, batch
    )
select
    m.employee_id, 'change', m.changed_at, m.last_changed_at, case when m.version is not null then $1::bigint end,
    case when m.version is not null then 'update' end, m.version, coalesce(m.fields, 0), m.hash, m.in_full,
    m.batch is not null,
    -- What is on its way has been judged.
    case when e.linked and m.version is null then x.batch end
from m
inner join benefits.enrolment as e on e.employee_id = any (array[m.employee_id]) and e.transferred_to is null
left join mass as x on x.batch = m.batch
on conflict (employee_id) do update set
    seq = p.seq + 1, last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at),
    batch = coalesce(excluded.batch, p.batch), ending = null, ending_kind = null,
    -- Whoever has the claim does not know of our write.
    in_full = p.in_full or excluded.in_full or excluded.intent_version is not null
returning p.employee_id, p.seq, p.claim, p.intent_version
