//! Ports that Proxmox and a plain Debian listen on, and names and ports that are worth a second look.
//! Not here: looking (`task::check`), judging (`plan::exposure`).

use super::On;
use crate::model::exposure::Protocol::{self, Tcp, Udp};

/// A port that is meant to be open.
pub struct Port {
    pub on: On,
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
    /// Beginning of the name of who may hold it, by their first 15 bytes.
    pub programs: &'static [&'static str],
}

const fn port(on: On, protocol: Protocol, first: u16, last: u16, programs: &'static [&'static str]) -> Port {
    Port { on, protocol, first, last, programs }
}

/// systemd holds sockets for services that it starts when somebody calls.
pub const PORTS: &[Port] = &[
    port(On::Any, Tcp, 22, 22, &["sshd", "systemd"]),
    port(On::Any, Tcp, 111, 111, &["rpcbind", "systemd"]),
    port(On::Any, Udp, 111, 111, &["rpcbind", "systemd"]),
    port(On::Any, Udp, 68, 68, &["dhclient", "dhcpcd", "systemd-network"]),
    port(On::Any, Udp, 546, 546, &["dhclient", "dhcpcd", "systemd-network"]),
    port(On::Any, Udp, 123, 123, &["chronyd", "ntpd"]),
    // What NFS asks to be called back on, of the kernel itself too: any port that the kernel hands out.
    port(On::Any, Tcp, 32768, 65535, &["rpc.statd"]),
    // Quorum for another cluster.
    port(On::Any, Tcp, 5403, 5403, &["corosync-qnetd"]),
    port(On::Pve, Tcp, 8006, 8006, &["pveproxy"]),
    port(On::Pve, Tcp, 3128, 3128, &["spiceproxy"]),
    port(On::Pve, Tcp, 5900, 5999, &["kvm", "vncterm", "termproxy", "socat", "nc", "task", "pvedaemon"]),
    port(On::Pve, Tcp, 60000, 60050, &["kvm", "socat", "task"]),
    port(On::Pve, Udp, 5404, 5412, &["corosync"]),
    port(On::Pve, Tcp, 3300, 3300, &["ceph-mon"]),
    port(On::Pve, Tcp, 6789, 6789, &["ceph-mon"]),
    port(On::Pve, Tcp, 6800, 7568, &["ceph-"]),
    port(On::Pve, Tcp, 179, 179, &["bgpd"]),
    // The kernel's own: VXLAN and WireGuard of SDN.
    port(On::Pve, Udp, 4789, 4789, &[]),
    port(On::Pve, Tcp, 53, 53, &["dnsmasq"]),
    port(On::Pve, Udp, 53, 53, &["dnsmasq"]),
    port(On::Pve, Udp, 67, 67, &["dnsmasq"]),
    port(On::Pbs, Tcp, 8007, 8007, &["proxmox-backup-proxy"]),
];

/// Ports that shells left behind by intruders and bots like to use.
pub const SUSPICIOUS_PORTS: [u16; 12] =
    [6666, 6665, 1337, 31337, 4444, 5555, 4242, 6324, 8888, 2222, 3389, 5900];

/// Programs that have no business on a hypervisor.
pub const SUSPICIOUS_PROGRAMS: [&str; 7] =
    ["ncat", "cryptominer", "xmrig", "kdevtmpfsi", "kinsing", "minerd", "mr.sh"];

/// Processes that call themselves in brackets like kernel threads, and are none: the word, and the program that may.
pub const BRACKETED: [(&str, &str); 1] = [("[lxc monitor]", "/usr/bin/lxc-start")];

/// The kernel's name for a file that has never been on a disk.
pub const MEMORY: &str = "/memfd:";
/// Programs that run from a copy that has no name by design.
pub const NAMELESS: [&str; 3] = ["/memfd:runc_cloned", "/memfd:lxc", "/memfd:liblxc"];

/// Places where nobody installs a program.
pub const THROWAWAY: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run/user"];

/// Below the lowest port that the kernel hands out by itself; beyond, a UDP socket is somebody who asks.
pub const UDP_SERVICES: u16 = 32_768;

/// Below /etc/pve: whether the cluster's, and this node's firewall is on.
pub const CLUSTER_RULES: &str = "firewall/cluster.fw";
pub const NODE_RULES: &str = "nodes/{node}/host.fw";
