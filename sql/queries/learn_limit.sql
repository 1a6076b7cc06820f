-- The most employees that a commit may touch without being a mass change, as far as it matters for a commit of $1: $2 of
-- those who are linked, counted no further than that commit needs.
select floor($2::float8 * count(*))::bigint
from (
    select
    from benefits.enrolment as e
    where e.linked
    limit case when $2::float8 > 0 then ceil($1::bigint / $2::float8) end
) as linked
