-- What is sent costs the ledger less.

-- An intent takes its row out of the mass change that marked it. A row version that changes an indexed column needs an entry
-- of its own in the primary key, too; without this index none does. A mass change is judged along the primary key instead,
-- whose order is the one that it is judged in.
-- squawk-ignore require-concurrent-index-deletion
drop index benefits.pending_batch_ix;
