//! Saves the configuration of Proxmox VE and Proxmox Backup Server hosts and brings it back.
//!
//! A catalogue says what a Proxmox host is made of; a task walks it; archive and store are rooms that do not
//! know each other; plans are pure; everything that happened becomes one Report.
//!
//! The house, floor by floor; imports go only downwards (`tests/floors.rs`):
//!
//! | floor | directory | what lives there |
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
    pub mod legacy;
    pub mod message;
    pub mod nearest;
    pub mod problem;
    pub mod record;
    pub mod report;
    pub mod secret;
    pub mod section;
    pub mod snapshot;
    pub mod units;
}

/// Floor 1. The machine: the only floor with processes, sockets and `unsafe`.
pub mod sys {
    pub mod dpkg;
    pub mod error_hint;
    pub mod guests;
    pub mod hide;
    pub mod hmac;
    pub mod host;
    pub mod host_dir;
    pub mod input;
    pub mod json_file;
    pub mod log;
    pub mod mail_contacts;
    pub mod mask;
    pub mod pmxcfs;
    #[cfg(test)]
    mod test_trees;
    pub mod tty;

    /// Files and file systems.
    pub mod fs {
        pub mod contained_dir;
        pub mod files;
        pub mod flags;
        pub mod free_space;
        pub mod glob;
        pub mod hash;
        pub mod leftovers;
        pub mod mounts;
        pub mod owners;
        pub mod permissions;
        pub mod replace;
        pub mod scratch;
        pub mod staging;
        pub mod walk;
    }

    /// HTTP, sockets and the packet filter.
    pub mod net {
        pub mod http;
        pub mod netfilter;
        pub mod sockets;
    }

    /// Processes: ours, those we run and those that run here.
    pub mod process {
        pub mod exec;
        pub mod forked;
        pub mod lock;
        pub mod locked_memory;
        pub mod processes;
        pub mod session;
        pub mod signals;
        pub mod threads;
    }

    /// Writes bytes as lower-case hex.
    pub fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            use std::fmt::Write;
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Floor 2. Configuration of this program.
pub mod config;

/// Floor 2. Catalogue of the items that a Proxmox host is made of.
pub mod catalog;

/// Floor 2. The snapshot file.
pub mod archive {
    pub mod codec;
    pub mod contents;
    pub mod guard;
    pub mod identity;
    pub mod index_text;
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

/// Floor 2. Stores that keep snapshots.
pub mod store;

/// Floor 2. Channels that a run is told to.
pub mod notify;

/// Floor 3. Decisions: pure functions of nouns.
pub mod plan {
    pub mod baseline;
    pub mod check;
    pub mod coverage;
    pub mod exposure;
    pub mod fleet;
    mod html;
    pub mod manifest_chain;
    pub mod message;
    pub mod metrics;
    pub mod passphrase;
    pub mod prune;
    pub mod restore;
    pub mod select;
    pub mod status;
    pub mod vzdump_conf;
}

/// Floor 4. Verbs.
pub mod task {
    pub mod backup;
    pub mod check;
    pub mod error;
    pub mod keys;
    pub mod restore;
    pub mod snapshots;

    /// The records of runs, and what follows them: status, metrics, messages, retention.
    pub mod runs {
        pub mod finish;
        pub mod fleet;
        pub mod installation;
        pub mod metrics;
        pub mod notify;
        pub mod prune;
        pub mod records;
        pub mod status;
    }

    /// Reads what this host has.
    pub mod scan {
        pub mod api;
        pub mod archiver;
        pub mod baseline;
        pub mod commands;
        pub mod coverage;
        pub mod drift;
        pub mod referenced_files;
        pub mod sources;
        pub mod walk;
    }

    /// Sets the program up on a host: configuration, migration, hooks.
    pub mod setup {
        pub mod configure;
        pub mod hook;
        pub mod migrate;
    }
}

/// Floor 5. Words.
pub mod cli;
