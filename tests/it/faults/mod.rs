//! Faults, one kind a file: what each does to the promise that nothing is lost and nothing is sent twice unaccounted.

mod orphans;
mod outage;
mod results;
