-- What delivery needs of pending employees, records included, in one snapshot. $1 ids; $2 whatever their state
-- (to be judged, not sent).
select
    p.employee_id, p.seq, p.in_full, p.attempts, p.requested_by,
    p.intent_kind, p.intent_version, p.intent_fields, p.intent_hash,
    e.benefits_id, e.linked, e.version, e.acknowledged, e.unknown_fields, e.outcome = 'failed' as was_failed,
    e.link_by, e.transferred_from, e.discarded,
    e.create_unresolved, (select s.rules_version from benefits.site as s) as rules_version,
    extract(epoch from clock_timestamp() - e.last_synced_at)::float8 as since_last_sync,
    (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock,
    r.*
from unnest($1::text[]) as w (employee_id)
inner join benefits.pending as p on p.employee_id = w.employee_id
inner join benefits.enrolment as e on e.employee_id = w.employee_id
left join benefits.read_records($1::text[]) as r on r.employee_id = w.employee_id
where
    $2::boolean or (
        p.claim is null and (p.not_before is null or p.not_before <= clock_timestamp())
        and (p.hold_id is null or p.seq > p.hold_seq) and (p.batch is null or p.ending is null)
    )
