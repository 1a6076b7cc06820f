-- Records what attempts came to, clears what is in step, and writes history: one statement, one flush.
-- Arrays by employee, in the order of ids so that two instances lock in one order: $1 id, $2 seq, $3 claim (null: never
-- claimed), $4 version, $5 acknowledged, $6 unknown fields, $7 outcome, $8 error code, $9 error, $10 account, $11 linked,
-- $12 seconds since the answer, $13 synced now, $21 version loaded, $22 a create's fate is unknown, $23 what was discarded
-- stays so, $24 hash of the record that was refused, $25 intent version loaded, $26 when an outcome was last recorded beside
-- the mark, as loaded.
-- Arrays by history line: $14 id, $15 event, $16 fields, $17 outcome, $18 error code, $19 error, $20 request id.
-- Returns whom it was recorded for. Who was marked between the statement's snapshot and its lock is missing: ask again.
-- Keys are compared so that no plan reads a whole table: see Session::connect_by_key.
with o as materialized (
    select *
    from unnest(
        $1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::text[], $8::text[],
        $9::text[], $10::text[], $11::boolean[], $12::float8[], $13::boolean[], $21::bigint[], $22::boolean[], $23::boolean[],
        $24::bytea[], $25::bigint[], $26::timestamptz[]
    ) as o (
        employee_id, seq, claim, version, acknowledged, unknown_fields, outcome, error_code, error, benefits_id,
        linked, age, synced, loaded_version, create_unresolved, discarded, refused, loaded_intent,
        loaded_progress
    )
),
cleared as (
    delete from benefits.pending as p
    using o inner join benefits.enrolment as e on e.employee_id = any (array[o.employee_id])
    where
        p.employee_id = any (array[o.employee_id]) and p.seq = o.seq and p.claim is not distinct from o.claim
        -- Under a claim nobody else delivers; without one somebody may have done so since the record was read, or may have
        -- sent something whose answer was lost.
        and (o.claim is not null or (
            e.version = o.loaded_version and p.intent_version is not distinct from o.loaded_intent
            and (o.loaded_progress is null or p.progressed_at = o.loaded_progress)
        ))
    returning o.*, true as last, p.requested_by, p.changed_at
),
kept as (
    update benefits.pending as p
    set
        claim = null, intent_kind = null, intent_version = null, intent_fields = 0, intent_hash = null,
        attempts = 0, not_before = null, hold_passed = false, changed_at = p.last_changed_at,
        progressed_at = clock_timestamp()
    from o
    inner join benefits.enrolment as e on e.employee_id = any (array[o.employee_id])
    inner join benefits.pending as b on b.employee_id = any (array[o.employee_id])
    where
        p.employee_id = any (array[o.employee_id]) and p.seq <> o.seq and p.claim is not distinct from o.claim
        and (o.claim is not null or (
            e.version = o.loaded_version and p.intent_version is not distinct from o.loaded_intent
            and (o.loaded_progress is null or p.progressed_at = o.loaded_progress)
        ))
    returning o.*, false as last, p.requested_by, b.changed_at
),
turn as (
    select t.*, clock_timestamp() - make_interval(secs => t.age) - t.changed_at as latency
    from (select * from cleared union all select * from kept) as t
),
state as (
    update benefits.enrolment as e
    set
        version = greatest(e.version, t.version), acknowledged = coalesce(t.acknowledged, e.acknowledged),
        unknown_fields = t.unknown_fields, create_unresolved = t.create_unresolved, outcome = t.outcome,
        error_code = t.error_code, error = t.error,
        -- Without a claim nothing was sent, and a command may have changed the link since the record was read.
        benefits_id = case when t.claim is null then e.benefits_id else t.benefits_id end,
        linked = case when t.claim is null then e.linked else t.linked end,
        link_by = case when t.claim is not null and t.linked then null else e.link_by end,
        refused = t.refused,
        discarded = case when t.discarded then e.discarded end,
        last_synced_at = case when t.synced then clock_timestamp() else e.last_synced_at end
    from turn as t
    where e.employee_id = any (array[t.employee_id])
),
lines as (
    insert into benefits.history
        (employee_id, event, fields, outcome, error_code, error, requested_by, latency, request_id)
    select h.employee_id, h.event, h.fields, h.outcome, h.error_code, h.error, t.requested_by, t.latency, h.request_id
    from unnest($14::text[], $15::text[], $16::bigint[], $17::text[], $18::text[], $19::text[], $20::text[])
        with ordinality as h (employee_id, event, fields, outcome, error_code, error, request_id, n)
    inner join turn as t on t.employee_id = h.employee_id
    order by h.n
)
select t.employee_id, t.last, extract(epoch from t.latency)::float8 as latency from turn as t
