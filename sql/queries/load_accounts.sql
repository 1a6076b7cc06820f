-- What the ledger holds about accounts of a page. $1 accounts; $2 employees whom they name; $3 the platform.
select
    e.employee_id, e.benefits_id, e.linked, e.version, e.acknowledged, e.unknown_fields, e.create_unresolved, p.intent_kind, p.intent_version,
    p.claim is not null as is_claimed
from benefits.enrolment as e
left join benefits.pending as p on p.employee_id = e.employee_id
where e.platform_id = $3::text and e.transferred_to is null
    and (e.benefits_id = any ($1::text[]) or (e.employee_id = any ($2::text[]) and e.benefits_id is null))
