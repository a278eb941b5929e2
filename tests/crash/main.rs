//! Crashes: a kill, a power cut, a signal or an error at every system call that changes something, and disks
//! that are full, read-only or gone. Afterwards there is the old state or a whole snapshot, never half of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod disks;
mod errors;
mod kill;
mod power;
mod sealed;
mod signals;
mod strace;
