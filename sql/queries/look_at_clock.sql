-- What the clock has to do, and when it has to look again. Writes nothing. $1 how far ahead it looks, in seconds.
-- Rows that come up to become current are looked for again after that time: one may be saved shortly before its instant.
select
    s.clock_on is null or s.clock_on < benefits.today() or (s.has_instants and (s.clock_at is null or coalesce(i.is_due, false))) as is_due,
    extract(epoch from benefits.until_midnight(clock_timestamp()))::float8 as to_midnight,
    extract(epoch from i.next_at - clock_timestamp())::float8 as to_next,
    s.has_instants
from benefits.site as s
left join lateral (
    select bool_or(b.at <= clock_timestamp()) as is_due, min(b.at) filter (where b.at > clock_timestamp()) as next_at
    from benefits.read_instants(
        coalesce(s.clock_at, clock_timestamp()), clock_timestamp() + make_interval(secs => $1::float8)
    ) as b
    where s.has_instants
) as i on true
