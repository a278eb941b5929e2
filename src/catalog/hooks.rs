//! Places where Proxmox and Debian let others take part, and our files there.

/// The configuration of each node; its `script` runs at every phase of every job that names none of its own.
pub const VZDUMP_CONF: &str = "/etc/vzdump.conf";
/// Below /etc/pve: a job's own `script` goes before the node's.
pub const JOBS: &str = "jobs.cfg";
/// The section kind of backup jobs there.
pub const JOB_KIND: &str = "vzdump";
/// After all guests, also when some of them failed.
pub const JOB_END: &str = "job-end";
/// The script that we put into [`VZDUMP_CONF`].
pub const VZDUMP_HOOK: &str = "/usr/share/proxmox-backup-extra/hooks/vzdump-hook";
/// The package's nightly run.
pub const TIMER: &str = "proxmox-backup-extra.timer";
/// The unit that the hook starts.
pub const SERVICE: &str = "proxmox-backup-extra-vzdump.service";

pub const APT_CONF: &str = "/etc/apt/apt.conf.d/80proxmox-backup-extra";
/// Its contents.
pub const APT_HOOK: &str = include_str!("../../hooks/apt.conf");
