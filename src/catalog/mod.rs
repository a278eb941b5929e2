//! The catalogue of a Proxmox host: one item for each thing worth keeping, and the only place of that fact.
//! The same item drives collecting, `pbx-config catalog`, `--only`, the index and the restore rule.
//! Not here: reading the host (`sys`), choosing items (`plan::select`).

pub mod api;
pub mod changing;
pub mod coverage;
pub mod exposure;
pub mod guests;
pub mod hooks;
pub mod legacy;
pub mod matcher;
pub mod monitoring;
pub mod objects;
pub mod own;

/// The items: one for each thing worth keeping.
pub mod items {
    pub mod pbs;
    pub mod pve;
    pub mod system;
}

/// Facts that a restore needs beside the items.
pub mod restore {
    pub mod early_boot;
    pub mod manual_steps;
    pub mod merges;
    pub mod references;
}

use std::fmt;

use serde::Serialize;

/// One thing a host's configuration is made of. Shape: `Item { id, title, source, ..BASE }`.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// Stable, unique, `[a-z0-9-]`; stands in indexes for ever.
    pub id: &'static str,
    /// The name that an admin calls it by.
    pub title: &'static str,
    pub category: Category,
    pub on: On,
    pub source: Source,
    /// Globs inside the source that are not taken.
    pub except: &'static [&'static str],
    /// Holds keys, passwords or tokens: masked wherever contents are shown.
    pub secret: bool,
    pub restore: RestoreRule,
    pub tied: Tied,
    /// The cluster lock (`/etc/pve/priv/lock/<name>`) under which Proxmox changes it.
    pub lock: Option<&'static str>,
    /// A command that makes the new files count, run once after all of them are in place.
    pub apply: &'static [&'static str],
    /// Units to restart after it has been brought back.
    pub restart: &'static [&'static str],
    pub risk: Risk,
    /// Advice that an admin must know or follow when it comes back; empty when there is none.
    pub note: &'static str,
    /// The hosts on which the note matters.
    pub note_on: On,
}

/// The product an item belongs to; `Any` is every Debian host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    Any,
    Pve,
    Pbs,
}

/// The words of `--only` and `--skip`, in the order they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Host name, time, locale: who this host is.
    Identity,
    /// Interfaces, names of cards, resolver, SDN.
    Network,
    /// APT sources, keys, package selections.
    Packages,
    /// Kernel command line, modules, initramfs, sysctl, udev.
    Boot,
    /// Mounts, pools, volumes, storages and datastores, with their keys.
    Storage,
    /// Local users and groups, sudo, PAM.
    Accounts,
    /// Host keys, root's keys, the server's configuration.
    Ssh,
    /// Units, daemons and their defaults.
    Services,
    /// Root's files, /usr/local, cron.
    Scripts,
    /// Proxmox users, realms, tokens, second factors, permissions.
    Access,
    /// TLS keys, the cluster CA, ACME.
    Certificates,
    /// Targets, matchers, templates, metric servers, mail.
    Notifications,
    Firewall,
    /// Virtual machines, containers, and what only they use.
    Guests,
    /// Corosync, the database, high availability, datacenter options.
    Cluster,
    Tape,
    /// Backup, replication, sync, verify, prune: what runs by itself.
    Jobs,
    /// Answers of commands about the host; for reading, never restored.
    State,
    /// Files that the configuration's `include` adds.
    Custom,
}

impl Category {
    pub const ALL: [Self; 19] = [
        Self::Identity,
        Self::Network,
        Self::Packages,
        Self::Boot,
        Self::Storage,
        Self::Accounts,
        Self::Ssh,
        Self::Services,
        Self::Scripts,
        Self::Access,
        Self::Certificates,
        Self::Notifications,
        Self::Firewall,
        Self::Guests,
        Self::Cluster,
        Self::Tape,
        Self::Jobs,
        Self::State,
        Self::Custom,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Network => "network",
            Self::Packages => "packages",
            Self::Boot => "boot",
            Self::Storage => "storage",
            Self::Accounts => "accounts",
            Self::Ssh => "ssh",
            Self::Services => "services",
            Self::Scripts => "scripts",
            Self::Access => "access",
            Self::Certificates => "certificates",
            Self::Notifications => "notifications",
            Self::Firewall => "firewall",
            Self::Guests => "guests",
            Self::Cluster => "cluster",
            Self::Tape => "tape",
            Self::Jobs => "jobs",
            Self::State => "state",
            Self::Custom => "custom",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The source of an item's contents.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// Absolute globs. `*` and `?` stay inside one component, `**` is any depth;
    /// a path without them that is a directory means the whole tree below it.
    Files(&'static [&'static str]),
    /// Globs below /etc/pve, with the same rules.
    Pmxcfs(&'static [&'static str]),
    /// The files of /etc/pve that no other item names: nothing there is missed.
    PmxcfsRest,
    /// A consistent copy of /var/lib/pve-cluster/config.db.
    Database,
    /// Standard output of a command, kept as `.pbx/state/<name>`. `{node}` in a word is this node's name.
    Output { argv: &'static [&'static str], name: &'static str },
    /// A GET of the product's own API, kept as `.pbx/state/<name>`: over HTTPS when a token is configured, else by
    /// the product's own tool (`api`). `{node}` in the path is this node's name.
    Api { path: &'static str, query: &'static [(&'static str, &'static str)], name: &'static str },
    /// Files that /etc/fstab and /etc/crypttab name as credentials or keys.
    MountSecrets,
    /// `snippets` directories of the local storages that storage.cfg defines.
    Snippets,
    /// The globs of `include` in the configuration.
    Configured,
    /// Absolute globs that are never collected by any item; `RestoreRule::Never` says why.
    LeftOut(&'static [&'static str]),
}

impl Source {
    /// The name below `.pbx/state` when the item is an answer, not files.
    pub fn answer(&self) -> Option<&'static str> {
        match self {
            Self::Output { name, .. } | Self::Api { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// The rule by which an item comes back (reference: pmxcfs rules, the official recovery).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreRule {
    /// Written beside the old one and renamed over it, then owner, mode and extended attributes.
    Files,
    /// Content only, through the mounted and quorate /etc/pve; never owner or mode.
    Pmxcfs,
    /// Adds what the live file lacks, line by line or section by section; nothing is taken away.
    AddLines,
    /// Like `Files`, while these units are stopped.
    Stopped(&'static [&'static str]),
    /// Kept for reading or not kept at all, never written back; why.
    Never(&'static str),
}

/// The thing that an item's contents are bound to; elsewhere they need an admin's eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tied {
    Nothing,
    /// Names this node or its addresses.
    Node,
    /// Names this machine's disks, cards or firmware.
    Hardware,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    None,
    /// May cut the admin's own connection.
    Session,
}

/// Name the credentials and keys that mounts need (`Source::MountSecrets`).
pub const FSTAB: &str = "/etc/fstab";
pub const CRYPTTAB: &str = "/etc/crypttab";
/// Below /etc/pve: defines the storages (`Source::Snippets`).
pub const STORAGES: &str = "storage.cfg";
/// Places that a link may lead to without being saved: packages have it, the cluster has it, or it is made at run time.
pub const ELSEWHERE: &[&str] = &[
    "/usr/share",
    "/usr/lib",
    "/usr/bin",
    "/usr/sbin",
    "/lib",
    "/bin",
    "/sbin",
    "/etc/pve",
    "/etc/alternatives",
    "/run",
    "/var/run",
    "/proc",
    "/sys",
    "/dev",
];
/// The place of the cluster file system, as a payload names it.
pub const PVE_TREE: &str = "etc/pve";
/// Names in its root that pmxcfs makes up; and the place of its locks.
pub use crate::sys::pmxcfs::VIRTUAL as PVE_VIRTUAL;
pub use crate::sys::pmxcfs::write::LOCKS as PVE_LOCKS;
/// Made by the kernel or at run time: nothing is ever put there.
pub const RUN_TIME: &[&str] = &["/proc", "/sys", "/dev", "/run", "/var/run"];
/// The file that every member of a cluster has, and no other host.
pub const CLUSTER_MEMBER: &str = "/etc/corosync/corosync.conf";
/// The directory of all of PBS's configuration.
pub const PBS_DIR: &str = "/etc/proxmox-backup";

/// Defaults of every item; the tables override what differs.
const BASE: Item = Item {
    id: "",
    title: "",
    category: Category::Services,
    on: On::Any,
    source: Source::Files(&[]),
    except: &[],
    secret: false,
    restore: RestoreRule::Files,
    tied: Tied::Nothing,
    lock: None,
    apply: &[],
    restart: &[],
    risk: Risk::None,
    note: "",
    note_on: On::Any,
};

/// Returns all items. Their order is the order of restore.
pub fn items() -> impl Iterator<Item = &'static Item> {
    items::system::ITEMS.iter().chain(items::pve::ITEMS).chain(items::pbs::ITEMS)
}
