-- Whether everyone has to be compared, by the database's clock (epoch seconds).
select
    s.doubt, s.doubt_count, s.owners_version, extract(epoch from clock_timestamp())::float8 as now,
    extract(epoch from c.reconciled_at)::float8 as reconciled_at, s.record_query is not null as described_at_all
from benefits.site as s
left join benefits.checkpoint as c on true
