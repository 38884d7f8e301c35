//! The duties of every store, run on PostgreSQL and on SQLite: a file for each use case.

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
mod record;
mod schema;
mod sessions;
mod work;

use rstest_reuse::template;

#[template]
#[rstest]
#[ignore = "needs PostgreSQL: run tests/run"]
#[case::postgres(Backend::Postgres)]
#[case::sqlite(Backend::Sqlite)]
#[tokio::test(flavor = "multi_thread")]
async fn on_both(#[case] backend: Backend) {}
