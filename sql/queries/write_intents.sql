-- Claims employees and makes the writes that are about to leave durable; returns who is ours to send.
-- $1 claim token; arrays, in the order of ids so that two instances lock in one order: $2 id, $3 version loaded,
-- $4 intent version loaded, $5 kind, $6 version, $7 fields, $8 body hash, $9 account to be linked, $10 when an outcome was
-- last recorded beside the mark, as loaded.
-- Keys are compared so that no plan reads a whole table: see Session::connect_by_key.
with i as materialized (
    select *
    from unnest(
        $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::bytea[], $9::text[],
        $10::timestamptz[]
    ) as i (employee_id, loaded_version, loaded_intent, kind, version, fields, hash, benefits_id, loaded_progress)
),
claimed as (
    update benefits.pending as p
    set
        claim = $1::bigint, intent_kind = i.kind, intent_version = i.version, intent_fields = i.fields,
        intent_hash = i.hash,
        -- Decided to be sent: judged, as far as a mass change is concerned.
        batch = null
    from i inner join benefits.enrolment as e on e.employee_id = any (array[i.employee_id])
    where
        p.employee_id = any (array[i.employee_id])
        and (p.claim is null or p.claim = $1::bigint)
        -- Nobody else has delivered since the record was loaded. After a wait for the mark's lock it is compared anew as it
        -- is then, but not the enrolment.
        and e.version = i.loaded_version
        and p.intent_version is not distinct from i.loaded_intent
        and (i.loaded_progress is null or p.progressed_at = i.loaded_progress)
        -- While the ledger may have lost its tail nothing leaves; the last look is this one.
        and not exists (select from benefits.site as s where s.doubt = 'platform')
    returning p.employee_id, i.benefits_id
),
reserved as (
    update benefits.enrolment as e
    set benefits_id = c.benefits_id
    from claimed as c
    where e.employee_id = any (array[c.employee_id]) and c.benefits_id is not null and e.benefits_id is distinct from c.benefits_id
)
select c.employee_id from claimed as c
