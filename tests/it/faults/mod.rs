//! Faults, one kind a file: what each does to the promise that nothing is lost and nothing is sent twice unaccounted.

mod broker;
mod clock;
mod database;
mod full_disk;
mod lifecycle;
mod model;
mod orphans;
mod outage;
mod results;
#[cfg(feature = "failpoints")]
mod steps;
