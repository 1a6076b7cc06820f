-- Puts the ledger right by what the platform holds, where nothing was sent since it was loaded. Arrays: $1 id, $2 version
-- loaded, $3 intent version loaded, $4 version floor, $5 acknowledged, $6 account, $7 linked, $8 whether it is to be
-- delivered (an intent has come to its end then), $9 whether a person has to decide. $10 the text for that person.
-- Returns who was put right.
with o as materialized (
    select *
    from unnest(
        $1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::text[], $7::boolean[], $8::boolean[],
        $9::boolean[]
    ) as o (
        employee_id, loaded_version, loaded_intent, version, acknowledged, benefits_id, linked, is_due, is_conflict
    )
),
turn as materialized (
    select o.*
    from o
    inner join benefits.enrolment as e on e.employee_id = o.employee_id and e.version = o.loaded_version
    left join benefits.pending as p on p.employee_id = o.employee_id
    where p.claim is null and p.intent_version is not distinct from o.loaded_intent
    order by o.employee_id
),
dropped as (
    delete from benefits.pending as p using turn as t where p.employee_id = t.employee_id and t.is_conflict
),
due as (
    insert into benefits.pending as p (employee_id, cause, bulk, changed_at, last_changed_at)
    select t.employee_id, 'reconcile', true, clock_timestamp(), clock_timestamp()
    from turn as t
    where t.is_due
    order by t.employee_id
    on conflict (employee_id) do update
    set
        seq = p.seq + 1, last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at),
        intent_kind = null, intent_version = null, intent_fields = 0, intent_hash = null
),
state as (
    update benefits.enrolment as e
    set
        version = greatest(e.version, t.version), acknowledged = t.acknowledged, unknown_fields = 0,
        benefits_id = t.benefits_id, linked = t.linked,
        outcome = case when t.is_conflict then 'failed' else e.outcome end,
        error_code = case when t.is_conflict then 'conflict' else e.error_code end,
        error = case when t.is_conflict then $10::text else e.error end,
        refused = case when t.is_conflict then ''::bytea else e.refused end
    from turn as t
    where e.employee_id = t.employee_id and e.version = t.loaded_version
    returning e.employee_id
),
lines as (
    insert into benefits.history (employee_id, event, outcome, error_code, error, requested_by)
    select t.employee_id, 'rejected', 'failed', 'conflict', $10::text, 'reconcile' from turn as t where t.is_conflict
)
select employee_id from state
