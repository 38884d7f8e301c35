//! Fuzz targets: inputs from outside, and the properties that hold for each of them.
//!
//! A target takes bytes and panics where a property is broken. The runner replays the corpus of a target and mutates its
//! entries, on stable Rust: it does not see which code an input reaches. A target notes the shape of a run instead, such
//! as the code of a refusal, and an input of a new shape is mutated further. Never here: code of the product.

pub mod corpus;
mod memory;
mod mutate;
pub mod runner;
mod shape;
mod source;
pub mod targets;
