//! The duties of every store, run on PostgreSQL and on SQLite: a file for each use case.

mod addresses;
mod backends;
mod cancel;
mod claims;
mod counts;
mod directory;
mod doomed;
mod due;
mod enquiry;
mod held;
mod intake;
mod leases;
mod log;
mod once;
mod operator;
mod page_tokens;
mod record;
mod schema;
mod sessions;
mod tokens;
mod work;
