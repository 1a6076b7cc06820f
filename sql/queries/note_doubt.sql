-- Notes a doubt; the graver one stays. $1 why.
update benefits.site
set
    doubt_count = doubt_count + 1,
    doubt = case
        when coalesce(array_position(g.grades, doubt), 0) > coalesce(array_position(g.grades, $1::text), 1) then doubt
        else $1::text
    end
from (select array['partitions', 'roster', 'lookup', 'owners', 'first-start', 'publication', 'slot', 'platform'] as grades) as g
