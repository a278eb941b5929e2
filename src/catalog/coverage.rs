//! Places beside the items that may hold what makes a host, and files that name others that belong to it.
//! Not here: looking (`task::scan::coverage`).

/// Everything in these is saved, left out by name, as its package brought it, or worth a word.
pub const TREES: [&str; 2] = ["/etc", "/usr/local"];

/// Endings that package tools give to the versions of a configuration file that are not in use.
pub const NOT_IN_USE: &[&str] =
    &[".dpkg-old", ".dpkg-dist", ".dpkg-new", ".dpkg-bak", ".dpkg-tmp", ".ucf-old", ".ucf-dist", ".ucf-new"];

/// The administrator's units and what is enabled. Links here lead to units of packages, or to the administrator's.
pub const UNITS: &str = "/etc/systemd/system";
/// Unit settings whose values name programs and files, by the beginning of their names.
pub const UNIT_KEYS: &[&str] =
    &["Exec", "EnvironmentFile", "LoadCredential", "SetCredentialEncrypted", "ImportCredential", "RootImage"];

/// Tables of cron, and directories of them: the files that their lines run belong to the host.
pub const CRONTABS: &[&str] = &["/etc/crontab", "/etc/anacrontab", "/etc/cron.d", "/var/spool/cron/crontabs"];

/// Settings of guests that name a volume or a file:
/// `hookscript VOLUME`, `cicustom user=VOLUME,network=VOLUME`.
pub const GUEST_VOLUMES: [&str; 2] = ["hookscript", "cicustom"];
/// `lxc.hook.pre-start: /path`, `lxc.include: /path`.
pub const GUEST_PATHS: [&str; 2] = ["lxc.hook.", "lxc.include"];

/// Folders of the root that are links into /usr on a merged system.
pub const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Named by many and settings of none: made at run time, logs, caches.
pub const NO_SETTINGS: &[&str] = &[
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/tmp",
    "/var/tmp",
    "/var/run",
    "/var/lock",
    "/var/log",
    "/var/cache",
    "/etc/pve",
];
