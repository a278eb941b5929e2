//! Guests of a node: where their configuration is, the lock that Proxmox's own tools change it under, and what shows
//! that one runs. Not here: what the configuration says (`plan::restore::guest_conf`).

use std::path::Path;

use super::PVE_TREE;
use crate::sys::guests::config_path;

/// Virtual machines, or containers.
#[derive(Debug)]
pub struct GuestKind {
    pub word: &'static str,
    pub tool: &'static str,
    /// The directory of the configurations, below that of a node.
    folder: &'static str,
    /// The parts of the lock's path before and behind the id.
    lock: (&'static str, &'static str),
    sign: fn(u32) -> Sign,
}

/// The sign that a guest runs on this node.
#[derive(Debug, PartialEq, Eq)]
pub enum Sign {
    /// The process in this file lives, and has this on its command line.
    Process { file: String, argument: String },
    /// Something listens on this abstract socket.
    Socket(String),
}

/// The kinds of guests.
// /var/lock and /var/run, by which Proxmox names them, are links to these on every Debian.
pub const KINDS: [GuestKind; 2] = [
    GuestKind {
        word: "VM",
        tool: "qm",
        folder: "qemu-server",
        lock: ("/run/lock/qemu-server/lock-", ".conf"),
        sign: |id| Sign::Process {
            file: format!("/run/qemu-server/{id}.pid"),
            argument: format!("/var/run/qemu-server/{id}.pid"),
        },
    },
    GuestKind {
        word: "CT",
        tool: "pct",
        folder: "lxc",
        lock: ("/run/lock/lxc/pve-config-", ".lock"),
        sign: |id| Sign::Socket(format!("@/var/lib/lxc/{id}/command")),
    },
];

/// A guest, by the path of its configuration.
#[derive(Debug)]
pub struct GuestPath<'a> {
    pub kind: &'static GuestKind,
    pub node: &'a str,
    pub id: u32,
}

impl<'a> GuestPath<'a> {
    /// `etc/pve/nodes/N/{qemu-server,lxc}/ID.conf`.
    pub fn of(path: &'a Path) -> Option<Self> {
        let (node, directory, id) = config_path(path.strip_prefix(PVE_TREE).ok()?)?;
        Some(Self { kind: KINDS.iter().find(|kind| kind.folder == directory)?, node, id })
    }

    /// The file whose flock is held while the configuration is changed: of this node alone. Its directory is there when
    /// the kind is installed, the file once something locked it.
    pub fn lock(&self) -> String {
        let (before, behind) = self.kind.lock;
        format!("{before}{}{behind}", self.id)
    }

    pub fn sign(&self) -> Sign {
        (self.kind.sign)(self.id)
    }
}

impl std::fmt::Display for GuestPath<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.word, self.id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_guest_is_told_by_its_path() {
        let of = |path: &'static str| GuestPath::of(Path::new(path)).map(|guest| (guest.id, guest.lock()));
        let vm = of("etc/pve/nodes/a/qemu-server/101.conf");
        assert_eq!(vm, Some((101, "/run/lock/qemu-server/lock-101.conf".to_owned())));
        let ct = of("etc/pve/nodes/a/lxc/102.conf");
        assert_eq!(ct, Some((102, "/run/lock/lxc/pve-config-102.lock".to_owned())));
        for path in [
            "etc/pve/nodes/a/lxc/0102.conf",
            "etc/pve/nodes/a/lxc/x.conf",
            "etc/pve/nodes/a/lxc/.conf",
            "etc/pve/nodes/a/lxc/102.conf/x",
            "etc/pve/nodes/a/openvz/102.conf",
            "etc/pve/firewall/102.fw",
            "root/nodes/a/lxc/102.conf",
            "etc/pve/nodes/a/lxc/99999999999.conf",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
