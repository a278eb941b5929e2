//! Our own files: their places, and who may touch them; places where private keys are usually left.

/// The rights that a file of ours must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Root alone changes it, everyone may read it.
    Public,
    /// Nobody but root.
    Private,
}

pub const PACKAGE: &str = "proxmox-backup-extra";
pub const TIMER: &str = "proxmox-backup-extra.timer";
/// The unit that the timer starts.
pub const SERVICE: &str = "proxmox-backup-extra.service";
pub const PROGRAM: &str = "/usr/bin/pbx-config";
/// Endings and names in the configuration directory that are for root alone.
pub const PRIVATE_NAMES: &[&str] = &["secrets.cfg", ".key", ".pem", ".secret"];

/// Places where an age identity may lie, and how many directories deep.
pub const IDENTITY_PLACES: &[(&str, usize)] = &[
    ("/etc/proxmox-backup-extra", 3),
    ("/etc/age", 2),
    ("/root", 1),
    ("/root/.age", 2),
    ("/root/.config/age", 2),
    ("/root/.config/sops", 2),
    ("/root/.config/rage", 2),
    ("/opt/proxsave/identity", 2),
    ("/opt/proxmox-backup/identity", 2),
];
/// The beginning of an identity, of every kind of key; then come letters and digits.
pub const IDENTITY: &str = "AGE-SECRET-KEY-";
