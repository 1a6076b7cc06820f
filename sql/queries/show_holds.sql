-- Mass changes that wait for a person. Reads no table before there can be holds.
select null::bigint as hold_id, null::text as reason, 0::bigint as employees, 0::float8 as age_seconds, null::text as transaction_user
where false
