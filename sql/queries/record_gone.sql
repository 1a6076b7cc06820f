-- Employees whose HR row was deleted. $1 ids, sorted.
update benefits.employee set gone_at = clock_timestamp() where employee_id = any ($1::text[]) and gone_at is null
