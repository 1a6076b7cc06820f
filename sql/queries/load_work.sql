-- What delivery needs of employees, records included, in one snapshot. $1 ids of pending employees, or of employees in
-- hand: $2 says which; $3 whatever the pending ones' state (to be judged, not sent). In hand without a mark: seq is 0.
-- Keys are compared so that no plan reads a whole table: see Session::connect_by_key.
select
    w.employee_id, coalesce(p.seq, 0) as seq, coalesce(p.in_full, false) as in_full, coalesce(p.attempts, 0) as attempts,
    p.intent_kind, p.intent_version, p.intent_fields, p.intent_hash, p.progressed_at,
    e.benefits_id, e.linked, e.version, e.acknowledged, e.unknown_fields, coalesce(e.outcome, '') as outcome,
    e.link_by, e.transferred_from, e.discarded,
    e.create_unresolved, s.rules_version, e.ctid::text as place, e.xmin::text as row_version,
    date_part('epoch', clock_timestamp() - e.last_synced_at) as since_last_sync,
    (date_part('epoch', clock_timestamp()) * 1000000)::bigint as clock,
    r.*
from unnest($1::text[], $2::boolean[]) as w (employee_id, in_hand)
cross join benefits.site as s
inner join benefits.enrolment as e on e.employee_id = any (array[w.employee_id])
left join benefits.pending as p on p.employee_id = any (array[w.employee_id])
left join benefits.read_records($1::text[]) as r on r.employee_id = w.employee_id
where
    case
        -- The last look: nothing leaves while the ledger may have lost its tail.
        when p.employee_id is null then w.in_hand and e.transferred_to is null and s.doubt is distinct from 'platform'
        else
            $3::boolean or (
                p.claim is null and (p.not_before is null or p.not_before <= clock_timestamp())
                and (p.hold_id is null or p.seq > p.hold_seq) and (p.batch is null or p.ending is null)
            )
    end
