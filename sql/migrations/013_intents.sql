-- What is sent costs the ledger less.

-- An intent takes its row out of the mass change that marked it. With that column in an index each intent made three new
-- index entries. A mass change is judged along the primary key instead, whose order is the one that it is judged in.
-- squawk-ignore require-concurrent-index-deletion
drop index benefits.pending_batch_ix;
