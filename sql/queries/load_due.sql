-- Pending employees whom nobody is delivering, single changes before bulk. $1 how many.
select p.employee_id, p.bulk
from benefits.pending as p
where p.claim is null and (p.not_before is null or p.not_before <= clock_timestamp())
    -- Neither held, nor waiting for the rest of a mass change to be judged.
    and (p.hold_id is null or p.seq > p.hold_seq) and (p.batch is null or p.ending is null)
order by p.bulk, p.pending_since
limit $1::bigint
