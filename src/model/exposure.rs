//! Exposure of a host: what it shows to the network and what runs on it. It is observed by `sys::net::sockets`,
//! `sys::process::processes` and `sys::net::netfilter`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A socket that waits for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub protocol: Protocol,
    pub address: String,
    /// Only this host itself gets there.
    pub loopback: bool,
    pub port: u16,
    /// Number by which a process's descriptor names it.
    pub inode: u64,
}

/// A process, or a thread of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Name in the kernel: at most 15 bytes.
    pub name: String,
    /// The first word of its command line; what it says of itself.
    pub title: String,
    /// The kernel's own word, which no process can forge.
    pub kernel: bool,
    pub zombie: bool,
    /// Set for a process in another PID namespace: it belongs to a container.
    pub contained: bool,
    pub program: Option<Program>,
    /// Inodes of its sockets.
    pub sockets: Vec<u64>,
}

/// The file that a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub path: PathBuf,
    pub deleted: bool,
    /// A file is at that path again, as after an upgrade.
    pub replaced: bool,
    pub world_writable: bool,
}

/// Rules that filter incoming packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Base chains of nftables (iptables-nft's too) that see what comes to this host; None: not told.
    pub nft: Option<Vec<Chain>>,
    /// Rules of the older iptables: table family ("ip", "ip6") and count.
    pub iptables: Vec<(&'static str, u32)>,
    /// Proxmox VE: what its configuration says. None: no such host.
    pub pve_enabled: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub table: String,
    pub name: String,
    /// The chain sees packets on their way to this host.
    pub input: bool,
    pub drops: bool,
    pub rules: u32,
}
