-- Marks synced employees as perhaps out of step, and moves the checkpoint: one statement, one flush.
-- $1 ids, sorted; $2 $3 first and last commit time of the changes; $4 cause; $5 bulk; $6 settle seconds; $7 checkpoint LSN;
-- $8 $9 the guard's minimum and fraction: more than that at once is a mass change, judged whole before it ends anybody;
-- $10 whose transaction it was, where that is known; $11 what the platform holds is not known: everything is sent.
with moved as (
    update benefits.checkpoint set lsn = $7::pg_lsn where lsn < $7::pg_lsn
),
mass as materialized (
    insert into benefits.mass_change (transaction_user)
    select $10::text
    where
        cardinality($1::text[]) > $8::integer
        -- Counted no further than it matters.
        and cardinality($1::text[]) > $9::float8 * (
            select count(*)
            from (
                select
                from benefits.enrolment as e
                where e.linked
                limit case when $9::float8 > 0 then ceil(cardinality($1::text[]) / $9::float8) end
            ) as linked
        )
    returning batch
)
insert into benefits.pending as p
    (employee_id, cause, bulk, in_full, pending_since, changed_at, last_changed_at, not_before, batch)
select
    m.employee_id, $4::text, $5::boolean, $11::boolean, clock_timestamp(), m.changed_at, m.last_changed_at,
    case when $6::float8 > 0 then clock_timestamp() + make_interval(secs => $6::float8) end,
    case when e.linked then (select x.batch from mass as x) end
from unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) with ordinality
    as m (employee_id, changed_at, last_changed_at, n)
inner join benefits.enrolment as e on e.employee_id = m.employee_id and e.transferred_to is null
order by m.n
on conflict (employee_id) do update
set
    seq = p.seq + 1, in_full = p.in_full or excluded.in_full,
    -- Another change is judged anew.
    batch = coalesce(excluded.batch, p.batch), ending = null, ending_kind = null,
    last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at),
    -- A change keeps what a failing platform made the employee wait for; a settle window starts again, five times at most.
    not_before = case
        when excluded.not_before is null then p.not_before
        else greatest(
            p.not_before, least(excluded.not_before, p.pending_since + make_interval(secs => 5 * $6::float8))
        )
    end
returning p.employee_id, p.batch is not null as in_mass_change
