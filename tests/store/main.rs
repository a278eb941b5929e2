//! Stores of every kind: one contract for all, and what is particular to each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

mod contract;
mod folders;
mod kinds;
mod pbs;
mod remotes;
