//! Items of a Proxmox Backup Server: `/etc/proxmox-backup` by subject, and its state in /var/lib.
//! Not here: what any Debian host has (`system`), the datastores' contents.

use crate::catalog::{BASE, Category, Item, On, RestoreRule, Source, Tied};

const PBS: Item = Item { on: On::Pbs, restore: RestoreRule::Files, ..BASE };
const STATE: Item = Item {
    category: Category::State,
    restore: RestoreRule::Never("a record of the server, for reading"),
    ..PBS
};

/// Only for what the daemons read once: a restart ends running backups.
const DAEMONS: &[&str] = &["proxmox-backup", "proxmox-backup-proxy"];

type Words = &'static [&'static str];

const fn state(id: &'static str, name: &'static str, title: &'static str, argv: Words) -> Item {
    Item { id, title, source: Source::Output { argv, name }, ..STATE }
}

/// Builds an item for the answer to a GET of the API.
const fn get(id: &'static str, name: &'static str, title: &'static str, path: &'static str) -> Item {
    Item { id, title, source: Source::Api { path, query: &[], name }, ..STATE }
}

const fn secret(item: Item) -> Item {
    Item { secret: true, ..item }
}

macro_rules! manager {
    ($($word:literal),+) => {
        &["proxmox-backup-manager", $($word,)+ "--output-format", "json"]
    };
}

macro_rules! tape {
    ($($word:literal),+) => { &["proxmox-tape", $($word,)+ "--output-format", "json"] };
}

// One item, one fact: laid out by hand, as rustfmt would give every field a line.
#[rustfmt::skip]
pub(crate) const ITEMS: &[Item] = &[
    // Node
    Item { id: "pbs-subscription", title: "Subscription", category: Category::Packages,
        source: Source::Files(&["/etc/proxmox-backup/subscription", "/etc/apt/auth.conf.d/pbs.conf"]),
        secret: true,
        restore: RestoreRule::Never("bound to the server id: set the key with proxmox-backup-manager"),
        tied: Tied::Node, ..PBS },
    Item { id: "pbs-node", title: "Node options", source: Source::Files(&["/etc/proxmox-backup/node.cfg"]),
        secret: true, tied: Tied::Node, restart: DAEMONS,
        note: "proxmox-backup starts only if its directory is backup:backup 0700", ..PBS },

    // Certificates
    Item { id: "pbs-certificate", title: "TLS certificate and key", category: Category::Certificates,
        source: Source::Files(&["/etc/proxmox-backup/proxy.pem", "/etc/proxmox-backup/proxy.key"]),
        secret: true, tied: Tied::Node, restart: DAEMONS,
        note: "clients and PVE storages pin its fingerprint: with another one all must be changed", ..PBS },
    Item { id: "pbs-auth-keys", title: "Ticket and CSRF keys", category: Category::Certificates,
        source: Source::Files(&["/etc/proxmox-backup/authkey.key", "/etc/proxmox-backup/authkey.pub",
            "/etc/proxmox-backup/csrf.key"]), secret: true,
        restore: RestoreRule::Never("created again when missing; only sessions depend on them"), ..PBS },
    Item { id: "pbs-acme", title: "ACME accounts and DNS plugins", category: Category::Certificates,
        source: Source::Files(&["/etc/proxmox-backup/acme"]), secret: true, ..PBS },

    // Datastores: what a datastore needs stands before the datastore
    Item { id: "pbs-s3", title: "S3 endpoints", category: Category::Storage,
        source: Source::Files(&["/etc/proxmox-backup/s3.cfg"]), secret: true, restart: DAEMONS, ..PBS },
    Item { id: "pbs-encryption-keys", title: "Encryption keys of the server", category: Category::Storage,
        source: Source::Files(&["/etc/proxmox-backup/encryption-keys.cfg",
            "/etc/proxmox-backup/encryption-keys"]), secret: true, restart: DAEMONS,
        note: "without them what they encrypted cannot be read by anyone", ..PBS },
    Item { id: "pbs-datastores", title: "Datastores", category: Category::Storage,
        source: Source::Files(&["/etc/proxmox-backup/datastore.cfg"]), tied: Tied::Hardware, restart: DAEMONS,
        note: "mount each path first; one S3 bucket prefix never belongs to two servers", ..PBS },
    Item { id: "pbs-traffic-control", title: "Traffic control", category: Category::Network,
        source: Source::Files(&["/etc/proxmox-backup/traffic-control.cfg"]), ..PBS },

    // Access
    Item { id: "pbs-realms", title: "Realms and their bind passwords", category: Category::Access,
        source: Source::Files(&["/etc/proxmox-backup/domains.cfg",
            "/etc/proxmox-backup/ldap_passwords.json"]), secret: true, ..PBS },
    Item { id: "pbs-users", title: "Users and API tokens", category: Category::Access,
        source: Source::Files(&["/etc/proxmox-backup/user.cfg"]),
        note: "backup groups belong to these names; users of @pam also need their account", ..PBS },
    Item { id: "pbs-shadow", title: "Passwords of @pbs users", category: Category::Access,
        source: Source::Files(&["/etc/proxmox-backup/shadow.json"]), secret: true, ..PBS },
    Item { id: "pbs-tokens", title: "API token hashes", category: Category::Access,
        source: Source::Files(&["/etc/proxmox-backup/token.shadow"]), secret: true,
        note: "keeps the tokens that clients hold valid", ..PBS },
    Item { id: "pbs-tfa", title: "Second factors", category: Category::Access,
        source: Source::Files(&["/etc/proxmox-backup/tfa.json"]), secret: true,
        note: "WebAuthn holds only under the same host name", ..PBS },
    Item { id: "pbs-acl", title: "Permissions", category: Category::Access,
        source: Source::Files(&["/etc/proxmox-backup/acl.cfg"]), note: "after the users it names", ..PBS },
    Item { id: "pbs-remotes", title: "Remotes", category: Category::Storage,
        source: Source::Files(&["/etc/proxmox-backup/remote.cfg"]), secret: true, ..PBS },

    // Tape
    Item { id: "pbs-tape-keys", title: "Tape encryption keys", category: Category::Tape,
        source: Source::Files(&["/etc/proxmox-backup/tape-encryption-keys.json",
            "/etc/proxmox-backup/tape-encryption-key-config.json"]), secret: true,
        note: "without them encrypted tapes cannot be read by anyone", ..PBS },
    Item { id: "pbs-tape-drives", title: "Tape drives and changers", category: Category::Tape,
        source: Source::Files(&["/etc/proxmox-backup/tape.cfg"]), tied: Tied::Hardware, ..PBS },
    Item { id: "pbs-media-pools", title: "Media pools", category: Category::Tape,
        source: Source::Files(&["/etc/proxmox-backup/media-pool.cfg"]), ..PBS },
    Item { id: "pbs-tape-inventory", title: "Tape inventory", category: Category::Tape,
        source: Source::Files(&["/var/lib/proxmox-backup/tape/inventory.json"]),
        note: "proxmox-tape catalog reads the contents of each tape again", ..PBS },

    // Jobs
    Item { id: "pbs-prune-jobs", title: "Prune jobs", category: Category::Jobs,
        source: Source::Files(&["/etc/proxmox-backup/prune.cfg"]),
        note: "jobs begin to run at once, and these delete", ..PBS },
    Item { id: "pbs-verify-jobs", title: "Verify jobs", category: Category::Jobs,
        source: Source::Files(&["/etc/proxmox-backup/verification.cfg"]), note: "jobs begin to run at once",
        ..PBS },
    Item { id: "pbs-sync-jobs", title: "Sync jobs", category: Category::Jobs,
        source: Source::Files(&["/etc/proxmox-backup/sync.cfg"]),
        note: "jobs begin to run at once; remove-vanished deletes", ..PBS },
    Item { id: "pbs-tape-jobs", title: "Tape backup jobs", category: Category::Jobs,
        source: Source::Files(&["/etc/proxmox-backup/tape-job.cfg"]), note: "jobs begin to run at once",
        ..PBS },

    // Notifications
    Item { id: "pbs-notification-templates", title: "Notification templates",
        category: Category::Notifications,
        source: Source::Files(&["/etc/proxmox-backup/notification-templates"]), ..PBS },
    Item { id: "pbs-notifications", title: "Notification targets and matchers",
        category: Category::Notifications,
        source: Source::Files(&["/etc/proxmox-backup/notifications.cfg",
            "/etc/proxmox-backup/notifications-priv.cfg"]), secret: true, ..PBS },
    Item { id: "pbs-metrics", title: "Metric servers", category: Category::Notifications,
        source: Source::Files(&["/etc/proxmox-backup/metricserver.cfg"]), secret: true, ..PBS },
    Item { id: "pbs-other", title: "Other files of /etc/proxmox-backup",
        source: Source::Files(&["/etc/proxmox-backup"]), secret: true,
        note: "proxmox-backup starts only if this directory is backup:backup 0700", ..PBS },

    // State
    state("pbs-state-version", "pbs-versions.json", "Package versions",
        manager!("versions", "--verbose", "true")),
    secret(state("pbs-state-node", "pbs-node.json", "Node options", manager!("node", "show"))),
    get("pbs-state-host", "pbs-host.json", "Node status", "/nodes/localhost/status"),
    secret(state("pbs-state-subscription", "pbs-subscription.json", "Subscription status",
        manager!("subscription", "get"))),
    get("pbs-state-repositories", "pbs-repositories.json", "APT repositories and their problems",
        "/nodes/localhost/apt/repositories"),
    get("pbs-state-services", "pbs-services.json", "Proxmox services", "/nodes/localhost/services"),
    state("pbs-state-certificate", "pbs-certificate.txt", "Certificate and fingerprint",
        &["proxmox-backup-manager", "cert", "info"]),
    state("pbs-state-network", "pbs-network.json", "Interfaces as PBS reads them",
        manager!("network", "list")),
    state("pbs-state-disks", "pbs-disks.json", "Disks and their use", manager!("disk", "list")),
    state("pbs-state-directories", "pbs-directories.json", "Directory mounts",
        manager!("disk", "fs", "list")),
    state("pbs-state-zpools", "pbs-zpools.json", "ZFS pools", manager!("disk", "zpool", "list")),
    state("pbs-state-datastores", "pbs-datastores.json", "Datastores", manager!("datastore", "list")),
    get("pbs-state-usage", "pbs-usage.json", "Use of datastores", "/status/datastore-usage"),
    state("pbs-state-gc", "pbs-gc.json", "Garbage collection", manager!("garbage-collection", "list")),
    secret(state("pbs-state-s3", "pbs-s3.json", "S3 endpoints", manager!("s3", "endpoint", "list"))),
    state("pbs-state-traffic", "pbs-traffic-control.json", "Traffic control",
        manager!("traffic-control", "list")),
    get("pbs-state-realms", "pbs-realms.json", "Realms with built-in ones", "/access/domains"),
    state("pbs-state-users", "pbs-users.json", "Users", manager!("user", "list")),
    state("pbs-state-acl", "pbs-acl.json", "Permissions", manager!("acl", "list")),
    state("pbs-state-remotes", "pbs-remotes.json", "Remotes", manager!("remote", "list")),
    state("pbs-state-sync", "pbs-sync-jobs.json", "Sync jobs", manager!("sync-job", "list")),
    state("pbs-state-verify", "pbs-verify-jobs.json", "Verify jobs", manager!("verify-job", "list")),
    state("pbs-state-prune", "pbs-prune-jobs.json", "Prune jobs", manager!("prune-job", "list")),
    get("pbs-state-sync-runs", "pbs-sync-runs.json", "Last runs of sync jobs", "/admin/sync"),
    get("pbs-state-verify-runs", "pbs-verify-runs.json", "Last runs of verify jobs", "/admin/verify"),
    get("pbs-state-prune-runs", "pbs-prune-runs.json", "Last runs of prune jobs", "/admin/prune"),
    state("pbs-state-acme-accounts", "pbs-acme-accounts.json", "ACME accounts",
        manager!("acme", "account", "list")),
    secret(state("pbs-state-acme-plugins", "pbs-acme-plugins.json", "ACME DNS plugins",
        manager!("acme", "plugin", "list"))),
    state("pbs-state-targets", "pbs-notification-targets.json", "Notification targets with built-in ones",
        manager!("notification", "target", "list")),
    state("pbs-state-matchers", "pbs-notification-matchers.json", "Notification matchers with built-in ones",
        manager!("notification", "matcher", "list")),
    state("pbs-state-tape-drives", "pbs-tape-drives.json", "Tape drives", tape!("drive", "list")),
    state("pbs-state-changers", "pbs-tape-changers.json", "Tape changers", tape!("changer", "list")),
    state("pbs-state-pools", "pbs-media-pools.json", "Media pools", tape!("pool", "list")),
    state("pbs-state-tape-keys", "pbs-tape-keys.json", "Fingerprints of tape keys", tape!("key", "list")),
    state("pbs-state-tape-jobs", "pbs-tape-jobs.json", "Tape backup jobs", tape!("backup-job", "list")),

    // Left out
    Item { id: "pbs-locks", title: "Lock files",
        source: Source::LeftOut(&["/etc/proxmox-backup/**/*.lck", "/etc/proxmox-backup/**/.*.lck",
            "/etc/proxmox-backup/**/*.lock", "/var/lib/proxmox-backup/**/*.lck",
            "/var/lib/proxmox-backup/**/.*.lck", "/var/lib/proxmox-backup/.clusterlock",
            "/var/lib/proxmox-backup/lock"]),
        restore: RestoreRule::Never("one with another owner breaks locking"), ..PBS },
    Item { id: "pbs-unfinished", title: "Unfinished writes",
        source: Source::LeftOut(&["/etc/proxmox-backup/**/*.tmp_*"]),
        restore: RestoreRule::Never("leftovers of an unfinished write"), ..PBS },
    Item { id: "pbs-tape-catalogs", title: "Media catalogues", category: Category::Tape,
        source: Source::LeftOut(&["/var/lib/proxmox-backup/tape/*.log"]),
        restore: RestoreRule::Never("large, and proxmox-tape catalog reads them from the tapes"), ..PBS },
    Item { id: "pbs-job-state", title: "State of jobs", category: Category::Jobs,
        source: Source::LeftOut(&["/var/lib/proxmox-backup/jobstates",
            "/var/lib/proxmox-backup/active-operations", "/var/lib/proxmox-backup/pkg-state.json"]),
        restore: RestoreRule::Never("last and current runs: written again"), ..PBS },
    Item { id: "pbs-spool", title: "Mail spool", category: Category::Notifications,
        source: Source::LeftOut(&["/var/lib/proxmox-backup/notifications"]),
        restore: RestoreRule::Never("messages on their way, not settings"), ..PBS },
    Item { id: "pbs-history", title: "Task logs, graphs and run files",
        source: Source::LeftOut(&["/var/log/proxmox-backup", "/var/lib/proxmox-backup/rrdb",
            "/run/proxmox-backup"]), restore: RestoreRule::Never("a history, not a setting"), ..PBS },
];
