-- A comparison of everyone ended well. $1 doubts counted when it began; $2 when that was (epoch seconds); $3 whether
-- row_owner was corrected. Returns whether no doubt is left.
with site as (
    update benefits.site
    set
        doubt = case when doubt_count = $1::bigint then null else doubt end,
        owners_version = owners_version + ($3::boolean)::integer
    returning doubt is null as clear
),
checkpoint as (
    update benefits.checkpoint set reconciled_at = to_timestamp($2::float8)
)
select clear from site
