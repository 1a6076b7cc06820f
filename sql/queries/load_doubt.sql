-- Whether everyone has to be compared, by the database's clock (epoch seconds).
select
    s.doubt, s.doubt_count, s.owners_version, extract(epoch from clock_timestamp())::float8 as now,
    -- Null before there is a checkpoint: nothing is due then. Everything is where a checkpoint was never compared for.
    extract(epoch from case when c.only_row then coalesce(c.reconciled_at, 'epoch') end)::float8 as reconciled_at, s.record_query is not null as described_at_all
from benefits.site as s
left join benefits.checkpoint as c on true
