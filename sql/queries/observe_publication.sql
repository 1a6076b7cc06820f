-- What a publication is made of: another oid is another publication, or a table that was out of it. $1 its name.
select array(
    select 'publication ' || p.oid::text
    union all
    select 'entry ' || r.oid::text from pg_publication_rel as r where r.prpubid = p.oid
    union all
    select k.kind
    from (
        values ('insert', p.pubinsert), ('update', p.pubupdate), ('delete', p.pubdelete), ('truncate', p.pubtruncate)
    ) as k (kind, is_published)
    where k.is_published
) as parts
from pg_publication as p
where p.pubname = $1::text::name
