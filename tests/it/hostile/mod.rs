//! Hostile inputs, one table a kind of way in: each case has a name, an input and its end. After each the
//! process has to answer others, nothing that was refused may be logged, and no answer may hold a secret.
//!
//! Never here: inputs that are slow or many, which `edge` has; producers beside others, which `hostile_producers` has.

mod batches;
mod bodies;
mod framing;
mod graph;
mod parameters;
mod paths;
mod producers;
mod scene;
mod tenants;
