//! Saves the configuration of Proxmox VE and Proxmox Backup Server hosts and brings it back.
//!
//! A catalogue says what a Proxmox host is made of; a task walks it; archive and store are rooms that do not
//! know each other; plans are pure; everything that happened becomes one Report.
//!
//! The house, floor by floor; imports go only downwards (`tests/floors.rs`):
//!
//! | floor | folder | what lives there |
//! | --- | --- | --- |
//! | 5 | `cli` | words: parse, ask, print, exit; the only floor that prints |
//! | 4 | `task` | verbs: compose rooms and plans, return a value |
//! | 3 | `plan` | decisions: pure functions of nouns |
//! | 2 | `config` `catalog` `archive` `store` `notify` | rooms; none imports another |
//! | 1 | `sys` | the machine: files, processes, pmxcfs, locks, logs |
//! | 0 | `model` | nouns: plain data, no I/O, no clock |

/// Floor 0. Nouns: plain data, no I/O, no clock.
pub mod model {
    pub mod exposure;
    pub mod facts;
    pub mod index;
    pub mod keep;
    pub mod message;
    pub mod nearest;
    pub mod record;
    pub mod relic;
    pub mod report;
    pub mod secret;
    pub mod section;
    pub mod snapshot;
    pub mod units;
}

/// Floor 1. The machine: the only floor with processes, sockets and `unsafe`.
pub mod sys {
    pub mod beneath;
    pub mod child;
    pub mod contacts;
    pub mod dpkg;
    pub mod exec;
    pub mod files;
    pub mod flags;
    pub mod glob;
    pub mod guests;
    pub mod hash;
    pub mod host;
    pub mod http;
    pub mod keyed;
    pub mod lock;
    pub mod locked;
    pub mod log;
    pub mod mask;
    pub mod mounts;
    pub mod netfilter;
    pub mod owners;
    pub mod pmxcfs;
    pub mod pmxcfs_put;
    pub mod processes;
    pub mod put;
    pub mod refusal;
    pub mod rights;
    pub mod scratch;
    pub mod session;
    pub mod sockets;
    pub mod space;
    #[cfg(test)]
    mod trees;
    pub mod tty;
    pub mod walk;

    /// Lower-case hex.
    pub fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            use std::fmt::Write;
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Floor 2. Our own configuration.
pub mod config;

/// Floor 2. What a Proxmox host is made of.
pub mod catalog;

/// Floor 2. The snapshot file.
pub mod archive {
    pub mod codec;
    pub mod contents;
    pub mod guard;
    pub mod identity;
    pub mod keys;
    pub mod legacy;
    pub mod pax;
    pub mod reader;
    pub mod recipient;
    pub mod seal;
    pub mod sign;
    pub mod sink;
    pub mod tar;
    pub mod writer;
}

/// Floor 2. Where snapshots are kept.
pub mod store;

/// Floor 2. Whom a run is told to.
pub mod notify;

/// Floor 3. Decisions: pure functions of nouns.
pub mod plan {
    pub mod advice;
    pub mod chain;
    pub mod changes;
    pub mod check;
    pub mod complete;
    pub mod datastores;
    mod decide;
    pub mod differences;
    pub mod excerpt;
    pub mod exposure;
    pub mod fleet;
    mod folders;
    pub mod guest_conf;
    pub mod guests;
    pub mod member;
    pub mod merge;
    pub mod message;
    pub mod metrics;
    pub mod moves;
    pub mod network;
    pub mod object;
    pub mod owners;
    mod page;
    pub mod passphrase;
    pub mod permissions;
    pub mod pieces;
    pub mod prune;
    pub mod refuse;
    pub mod relocate;
    pub mod restore;
    pub mod select;
    pub mod selector;
    pub mod shape;
    pub mod status;
    pub mod vzdump_conf;
}

/// Floor 4. Verbs.
pub mod task {
    pub mod after;
    pub mod ahead;
    pub mod api;
    pub mod apply;
    pub mod armed;
    pub mod audit;
    pub mod backup;
    pub mod changes;
    pub mod check;
    pub mod collect;
    pub mod complete;
    pub mod configure;
    pub mod database;
    pub mod decrypt;
    mod deliver;
    pub mod drift;
    pub mod extract;
    pub mod fixed;
    pub mod fleet;
    pub mod hook;
    pub mod intake;
    pub mod journal;
    pub mod key;
    pub mod legacy;
    pub mod limit;
    pub mod metrics;
    pub mod migrate;
    pub mod mounted;
    pub mod notify;
    pub mod observe;
    pub mod perform;
    pub mod picked;
    pub mod preview;
    pub mod probe;
    pub mod proof;
    pub mod prune;
    pub mod record;
    pub mod restore;
    pub mod safety;
    pub mod services;
    pub mod snapshots;
    pub mod sources;
    pub mod state;
    pub mod status;
    pub mod surroundings;
    pub mod trial;
    pub mod trouble;
    pub mod undo;
    pub mod unfinished;
    pub mod verify;
}

/// Floor 5. Words.
pub mod cli;
