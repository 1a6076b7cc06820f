-- The site as described.
select
    s.record_query is not null as described_at_all, s.described, s.platform_id, s.time_zone, s.fingerprint_check,
    s.paused_reason, s.halted_code, s.halted_reason, s.doubt, d.version
from benefits.site as s
cross join benefits.description as d
