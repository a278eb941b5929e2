//! Items of a Proxmox VE node: `/etc/pve` by subject, and PVE's files outside it.
//! Not here: what any Debian host has (`system`).

use crate::catalog::{BASE, Category, Item, On, RestoreRule, Risk, Source, Tied};

/// Base of the items in /etc/pve, the same on every node.
const PVE: Item = Item { on: On::Pve, restore: RestoreRule::Pmxcfs, ..BASE };
/// Base of the items on this node's own disk.
const NODE: Item = Item { restore: RestoreRule::Files, ..PVE };
const FIREWALL: Item = Item { category: Category::Firewall, risk: Risk::Session, ..PVE };
const STATE: Item = Item {
    category: Category::State,
    restore: RestoreRule::Never("a record of the node, for reading"),
    ..PVE
};

/// SDN changes all its files under the lock of one.
const SDN_LOCK: &str = "file-sdn__running-config";

type Words = &'static [&'static str];

const fn state(id: &'static str, name: &'static str, title: &'static str, argv: Words) -> Item {
    Item { id, title, source: Source::Output { argv, name }, ..STATE }
}

/// Builds an item for the answer to a GET of the API.
const fn get(id: &'static str, name: &'static str, title: &'static str, path: &'static str) -> Item {
    asked(id, name, title, path, &[])
}

const fn asked(
    id: &'static str,
    name: &'static str,
    title: &'static str,
    path: &'static str,
    query: &'static [(&'static str, &'static str)],
) -> Item {
    Item { id, title, source: Source::Api { path, query, name }, ..STATE }
}

const fn secret(item: Item) -> Item {
    Item { secret: true, ..item }
}

/// Without a limit `ceph` waits for dead monitors for ever.
macro_rules! ceph {
    ($($word:literal),+) => { &["ceph", "--connect-timeout", "10", $($word,)+ "-f", "json"] };
}

// One item, one fact: laid out by hand, as rustfmt would give every field a line.
#[rustfmt::skip]
pub(crate) const ITEMS: &[Item] = &[
    // This node
    Item { id: "pve-subscription", title: "Subscription", category: Category::Packages,
        source: Source::Files(&["/etc/subscription", "/etc/apt/auth.conf.d/pve.conf",
            "/etc/apt/auth.conf.d/ceph.conf"]), secret: true,
        restore: RestoreRule::Never("bound to the server id: pvesubscription set KEY"), tied: Tied::Node,
        ..NODE },
    Item { id: "pve-defaults", title: "Defaults of Proxmox daemons",
        source: Source::Files(&["/etc/default/pve*"]), tied: Tied::Node,
        restart: &["pvedaemon", "pveproxy", "spiceproxy"], note: "a new HA watchdog module takes a reboot",
        ..NODE },

    // Cluster
    // Not pve-guests: stopping it shuts every guest down.
    Item { id: "pve-database", title: "Database of /etc/pve", category: Category::Cluster,
        source: Source::Database, secret: true,
        restore: RestoreRule::Stopped(&["pve-cluster", "pvedaemon", "pveproxy", "spiceproxy", "pvestatd",
            "pvescheduler", "pve-firewall", "pve-ha-lrm", "pve-ha-crm"]), tied: Tied::Node,
        risk: Risk::Session,
        note: "all of /etc/pve at once: for a dead single node, never in a running cluster", ..NODE },
    Item { id: "pve-corosync", title: "Corosync configuration", category: Category::Cluster,
        source: Source::Pmxcfs(&["corosync.conf"]),
        restore: RestoreRule::Never("join again with pvecm add; an edit raises config_version and renames"),
        tied: Tied::Node, risk: Risk::Session, ..PVE },
    Item { id: "pve-corosync-node", title: "Corosync of this node and its key", category: Category::Cluster,
        source: Source::Files(&["/etc/corosync"]), except: &["/etc/corosync/qnetd"], secret: true,
        restore: RestoreRule::Never("pvecm add copies it; by hand only to revive this node"),
        tied: Tied::Node, risk: Risk::Session, ..NODE },
    Item { id: "pve-datacenter", title: "Datacenter options", category: Category::Cluster,
        source: Source::Pmxcfs(&["datacenter.cfg"]), lock: Some("file-datacenter_cfg"), ..PVE },
    Item { id: "pve-node-config", title: "Node options", category: Category::Cluster,
        source: Source::Pmxcfs(&["nodes/*/config"]), tied: Tied::Node, ..PVE },
    Item { id: "pve-node-private", title: "Private files of nodes", category: Category::Cluster,
        source: Source::Pmxcfs(&["nodes/*/priv/**"]), secret: true, tied: Tied::Node, ..PVE },

    // Certificates
    Item { id: "pve-ca", title: "Cluster certificate authority", category: Category::Certificates,
        source: Source::Pmxcfs(&["pve-root-ca.pem", "priv/pve-root-ca.key", "priv/pve-root-ca.srl"]),
        secret: true, restart: &["pveproxy", "spiceproxy"],
        note: "for a rebuilt cluster only, never after a join; then pvecm updatecerts -f", ..PVE },
    Item { id: "pve-www-key", title: "CSRF key of the web interface", category: Category::Certificates,
        source: Source::Pmxcfs(&["pve-www.key"]), secret: true, restart: &["pvedaemon", "pveproxy"],
        note: "for a rebuilt cluster only; all users must log in again", ..PVE },
    Item { id: "pve-auth-key", title: "Ticket signing key", category: Category::Certificates,
        source: Source::Pmxcfs(&["authkey.pub", "authkey.pub.old", "priv/authkey.key"]), secret: true,
        restore: RestoreRule::Never("created again every 24 hours; an old one ends every session"), ..PVE },
    Item { id: "pve-node-cert", title: "Node certificates of the cluster CA",
        category: Category::Certificates,
        source: Source::Pmxcfs(&["nodes/*/pve-ssl.pem", "nodes/*/pve-ssl.key"]), secret: true,
        restore: RestoreRule::Never("pvecm updatecerts -f signs new ones; then restart pveproxy"),
        tied: Tied::Node, ..PVE },
    Item { id: "pve-node-custom-cert", title: "Own and ACME node certificates",
        category: Category::Certificates,
        source: Source::Pmxcfs(&["nodes/*/pveproxy-ssl.pem", "nodes/*/pveproxy-ssl.key"]), secret: true,
        tied: Tied::Node, restart: &["pveproxy", "spiceproxy"], ..PVE },
    Item { id: "pve-acme", title: "ACME accounts and DNS plugins", category: Category::Certificates,
        source: Source::Pmxcfs(&["priv/acme"]), secret: true, lock: Some("file-priv_acme_plugins_cfg"),
        ..PVE },

    // SSH between nodes
    Item { id: "pve-authorized-keys", title: "Root's SSH keys of all nodes", category: Category::Ssh,
        source: Source::Pmxcfs(&["priv/authorized_keys"]), restore: RestoreRule::AddLines,
        note: "added through /etc/pve; pvecm updatecerts adds this node's own key", ..PVE },
    Item { id: "pve-known-hosts", title: "SSH host keys of nodes", category: Category::Ssh,
        source: Source::Pmxcfs(&["priv/known_hosts", "nodes/*/ssh_known_hosts"]),
        restore: RestoreRule::Never("pvecm updatecerts writes them for the running nodes"), tied: Tied::Node,
        ..PVE },

    // Access
    Item { id: "pve-realms", title: "Realms and their bind passwords", category: Category::Access,
        source: Source::Pmxcfs(&["domains.cfg", "priv/realm", "priv/ldap"]), secret: true,
        lock: Some("file-domains_cfg"), ..PVE },
    Item { id: "pve-users", title: "Users, groups, pools, roles and permissions", category: Category::Access,
        source: Source::Pmxcfs(&["user.cfg"]), lock: Some("file-user_cfg"),
        note: "users of @pam also need their account on the host", ..PVE },
    Item { id: "pve-shadow", title: "Passwords of @pve users", category: Category::Access,
        source: Source::Pmxcfs(&["priv/shadow.cfg"]), secret: true, lock: Some("file-priv_shadow_cfg"),
        ..PVE },
    Item { id: "pve-tokens", title: "API token secrets", category: Category::Access,
        source: Source::Pmxcfs(&["priv/token.cfg"]), secret: true, lock: Some("file-priv_token_cfg"),
        note: "together with the users they belong to", ..PVE },
    Item { id: "pve-tfa", title: "Second factors", category: Category::Access,
        source: Source::Pmxcfs(&["priv/tfa.cfg"]), secret: true, lock: Some("file-priv_tfa_cfg"),
        note: "WebAuthn holds only under the same host name", ..PVE },

    // Storage: what a storage needs stands before the storage
    Item { id: "pve-storage-passwords", title: "Passwords of storages", category: Category::Storage,
        source: Source::Pmxcfs(&["priv/storage/*.pw"]), secret: true, ..PVE },
    Item { id: "pve-encryption-keys", title: "Encryption keys of PBS storages", category: Category::Storage,
        source: Source::Pmxcfs(&["priv/storage/*.enc"]), secret: true,
        note: "without them encrypted backups cannot be read by anyone", ..PVE },
    Item { id: "pve-master-keys", title: "Public master keys of PBS storages", category: Category::Storage,
        source: Source::Pmxcfs(&["priv/storage/*.master.pem"]), ..PVE },
    Item { id: "pve-ceph-external", title: "Credentials of external Ceph clusters",
        category: Category::Storage, source: Source::Pmxcfs(&["priv/ceph"]), secret: true, ..PVE },
    Item { id: "pve-zfs-iscsi-keys", title: "SSH keys of ZFS over iSCSI", category: Category::Storage,
        source: Source::Pmxcfs(&["priv/zfs"]), secret: true, ..PVE },
    Item { id: "pve-ceph", title: "Ceph of this cluster", category: Category::Storage,
        source: Source::Pmxcfs(&["ceph.conf", "ceph", "priv/ceph.client.admin.keyring",
            "priv/ceph.mon.keyring"]), secret: true, lock: Some("file-ceph_conf"),
        note: "only if the same Ceph cluster still exists", ..PVE },
    Item { id: "pve-ceph-daemons", title: "Keyrings of Ceph daemons", category: Category::Storage,
        source: Source::Files(&["/var/lib/ceph/bootstrap-*/*.keyring", "/var/lib/ceph/mon/*/keyring",
            "/var/lib/ceph/mgr/*/keyring", "/var/lib/ceph/mds/*/keyring", "/var/lib/ceph/osd/*/keyring"]),
        secret: true, tied: Tied::Hardware, note: "only if the same Ceph cluster and these disks still exist",
        ..NODE },
    Item { id: "pve-storage", title: "Storage definitions", category: Category::Storage,
        source: Source::Pmxcfs(&["storage.cfg"]), lock: Some("file-storage_cfg"), restart: &["pvestatd"],
        note: "nodes, pools and volume groups named here must exist", ..PVE },

    // Guest resources
    Item { id: "pve-mapping-pci", title: "PCI mappings", category: Category::Guests,
        source: Source::Pmxcfs(&["mapping/pci.cfg"]), lock: Some("file-mapping_pci_cfg"),
        tied: Tied::Hardware, note: "paths, ids and IOMMU groups must match this machine", ..PVE },
    Item { id: "pve-mapping-usb", title: "USB mappings", category: Category::Guests,
        source: Source::Pmxcfs(&["mapping/usb.cfg"]), lock: Some("file-mapping_usb_cfg"),
        tied: Tied::Hardware, ..PVE },
    Item { id: "pve-mapping-directory", title: "Directory mappings", category: Category::Guests,
        source: Source::Pmxcfs(&["mapping/directory.cfg"]), lock: Some("file-mapping_directory_cfg"),
        tied: Tied::Node, ..PVE },
    Item { id: "pve-cpu-models", title: "Custom CPU models and guest profiles", category: Category::Guests,
        source: Source::Pmxcfs(&["virtual-guest"]), ..PVE },

    // SDN
    Item { id: "pve-sdn-wireguard", title: "WireGuard keys of SDN", category: Category::Network,
        source: Source::Pmxcfs(&["priv/wg-keys.cfg"]), secret: true, ..PVE },
    Item { id: "pve-sdn-ipams", title: "SDN IPAM and DNS services", category: Category::Network,
        source: Source::Pmxcfs(&["sdn/ipams.cfg", "sdn/dns.cfg"]), secret: true, lock: Some(SDN_LOCK),
        ..PVE },
    Item { id: "pve-sdn", title: "SDN definitions", category: Category::Network,
        source: Source::Pmxcfs(&["sdn/zones.cfg", "sdn/vnets.cfg", "sdn/subnets.cfg", "sdn/controllers.cfg",
            "sdn/fabrics.cfg", "sdn/route-maps.cfg", "sdn/prefix-lists.cfg"]), lock: Some(SDN_LOCK),
        note: "pending until applied: pvesh set /cluster/sdn", ..PVE },
    Item { id: "pve-sdn-running", title: "SDN as applied, and IPAM leases", category: Category::Network,
        source: Source::Pmxcfs(&["sdn/.running-config", "sdn/pve-ipam-state.json"]), lock: Some(SDN_LOCK),
        risk: Risk::Session, ..PVE },
    Item { id: "pve-sdn-generated", title: "SDN as written to this node", category: Category::Network,
        source: Source::Files(&["/etc/network/interfaces.d/sdn", "/etc/dnsmasq.d/*/*",
            "/etc/dbus-1/system.d/dnsmasq.*.conf", "/etc/faucet"]), secret: true,
        restore: RestoreRule::Never("SDN writes it: pvesh set /cluster/sdn"), tied: Tied::Node, ..NODE },

    // Firewall
    Item { id: "pve-firewall", title: "Cluster firewall", source: Source::Pmxcfs(&["firewall/cluster.fw"]),
        lock: Some("firewall-cluster"), ..FIREWALL },
    Item { id: "pve-firewall-node", title: "Node firewalls", source: Source::Pmxcfs(&["nodes/*/host.fw"]),
        tied: Tied::Node, ..FIREWALL },
    Item { id: "pve-firewall-vnet", title: "VNet firewalls", source: Source::Pmxcfs(&["sdn/firewall/*.fw"]),
        ..FIREWALL },
    Item { id: "pve-firewall-guest", title: "Guest firewalls", source: Source::Pmxcfs(&["firewall/*.fw"]),
        except: &["firewall/cluster.fw"], risk: Risk::None, ..FIREWALL },

    // Guests
    Item { id: "pve-snippets", title: "Snippets: hook scripts and cloud-init", category: Category::Guests,
        source: Source::Snippets, secret: true, ..NODE },
    Item { id: "pve-lxc", title: "LXC defaults and guest scripts", category: Category::Guests,
        source: Source::Files(&["/etc/lxc", "/etc/qemu-server"]), ..NODE },
    // What lxc and lxc-pve bring themselves stays out, so that a newer version is never set back.
    Item { id: "pve-lxc-hooks", title: "Own LXC hooks", category: Category::Guests,
        source: Source::Files(&["/usr/share/lxc/hooks"]),
        except: &["/usr/share/lxc/hooks/clonehostname", "/usr/share/lxc/hooks/dhclient",
            "/usr/share/lxc/hooks/dhclient-script", "/usr/share/lxc/hooks/lxc-pve-*",
            "/usr/share/lxc/hooks/mountecryptfsroot", "/usr/share/lxc/hooks/nvidia",
            "/usr/share/lxc/hooks/squid-deb-proxy-client", "/usr/share/lxc/hooks/ubuntu-cloud-prep",
            "/usr/share/lxc/hooks/unmount-namespace"], ..NODE },
    // romfile= looks only in this directory of pve-qemu-kvm; its own ROMs stay out as above.
    Item { id: "pve-roms", title: "Own ROM files of passed-through cards", category: Category::Guests,
        source: Source::Files(&["/usr/share/kvm/*.rom", "/usr/share/kvm/*.bin"]),
        except: &["/usr/share/kvm/efi-*.rom", "/usr/share/kvm/pxe-*.rom", "/usr/share/kvm/qboot.rom",
            "/usr/share/kvm/bios.bin", "/usr/share/kvm/bios-256k.bin", "/usr/share/kvm/bios-microvm.bin",
            "/usr/share/kvm/kvmvapic.bin", "/usr/share/kvm/linuxboot.bin", "/usr/share/kvm/linuxboot_dma.bin",
            "/usr/share/kvm/multiboot.bin", "/usr/share/kvm/multiboot_dma.bin", "/usr/share/kvm/pvh.bin",
            "/usr/share/kvm/slof.bin", "/usr/share/kvm/vof.bin", "/usr/share/kvm/vof-nvram.bin",
            "/usr/share/kvm/opensbi-*.bin", "/usr/share/kvm/npcm*_bootrom.bin", "/usr/share/kvm/u-boot-*.bin",
            "/usr/share/kvm/vgabios.bin", "/usr/share/kvm/vgabios-ati.bin",
            "/usr/share/kvm/vgabios-bochs-display.bin", "/usr/share/kvm/vgabios-cirrus.bin",
            "/usr/share/kvm/vgabios-qxl.bin", "/usr/share/kvm/vgabios-ramfb.bin",
            "/usr/share/kvm/vgabios-stdvga.bin", "/usr/share/kvm/vgabios-virtio.bin",
            "/usr/share/kvm/vgabios-vmware.bin"], tied: Tied::Hardware, ..NODE },
    Item { id: "pve-guests", title: "VM and container definitions", category: Category::Guests,
        source: Source::Pmxcfs(&["nodes/*/qemu-server/*.conf", "nodes/*/lxc/*.conf"]), tied: Tied::Node,
        note: "their disks are not restored with them; a VMID must be free in the whole cluster", ..PVE },

    // Notifications
    Item { id: "pve-notification-templates", title: "Notification templates",
        category: Category::Notifications, source: Source::Pmxcfs(&["notification-templates"]), ..PVE },
    Item { id: "pve-notifications", title: "Notification targets and matchers",
        category: Category::Notifications,
        source: Source::Pmxcfs(&["notifications.cfg", "priv/notifications.cfg"]), secret: true,
        lock: Some("file-notifications_cfg"), ..PVE },
    Item { id: "pve-metrics", title: "Metric servers", category: Category::Notifications,
        source: Source::Pmxcfs(&["status.cfg", "priv/metricserver"]), secret: true,
        lock: Some("file-status_cfg"), restart: &["pvestatd"], ..PVE },

    // Jobs
    Item { id: "pve-vzdump", title: "vzdump defaults of this node", category: Category::Jobs,
        source: Source::Files(&["/etc/vzdump.conf"]), ..NODE },
    Item { id: "pve-jobs", title: "Backup and realm sync jobs", category: Category::Jobs,
        source: Source::Pmxcfs(&["jobs.cfg"]), lock: Some("file-jobs_cfg"), note: "jobs begin to run at once",
        ..PVE },
    Item { id: "pve-vzdump-cron", title: "Legacy backup jobs", category: Category::Jobs,
        source: Source::Pmxcfs(&["vzdump.cron"]), lock: Some("file-vzdump_cron"),
        note: "jobs begin to run at once", ..PVE },
    Item { id: "pve-replication", title: "Replication jobs", category: Category::Jobs,
        source: Source::Pmxcfs(&["replication.cfg"]), lock: Some("file-replication_cfg"), tied: Tied::Node,
        note: "jobs begin to run at once, to the named nodes", ..PVE },
    Item { id: "pve-pbx-config", title: "Cluster-wide configuration of pbx-config",
        source: Source::Pmxcfs(&["pbx-config.cfg", "priv/pbx-config-secrets.cfg"]), secret: true, ..PVE },

    // High availability comes after everything it may start
    Item { id: "pve-ha-fencing", title: "HA hardware fencing", category: Category::Cluster,
        source: Source::Pmxcfs(&["ha/fence.cfg"]), secret: true, lock: Some("domain-ha"),
        tied: Tied::Hardware, risk: Risk::Session, ..PVE },
    Item { id: "pve-ha", title: "HA resources and rules", category: Category::Cluster,
        source: Source::Pmxcfs(&["ha/groups.cfg", "ha/rules.cfg", "ha/resources.cfg"]),
        lock: Some("domain-ha"), tied: Tied::Node, risk: Risk::Session,
        note: "HA starts guests and may fence nodes; PVE 9 turns groups into rules", ..PVE },
    Item { id: "pve-other", title: "Other files of /etc/pve", category: Category::Cluster,
        source: Source::PmxcfsRest, secret: true, ..PVE },

    // State
    state("pve-state-version", "pveversion.txt", "Package versions", &["pveversion", "-v"]),
    get("pve-state-node", "pve-node.json", "Node status", "/nodes/{node}/status"),
    secret(get("pve-state-subscription", "pve-subscription.json", "Subscription status",
        "/nodes/{node}/subscription")),
    get("pve-state-repositories", "pve-repositories.json", "APT repositories and their problems",
        "/nodes/{node}/apt/repositories"),
    get("pve-state-services", "pve-services.json", "Proxmox services", "/nodes/{node}/services"),
    get("pve-state-certificates", "pve-certificates.json", "Certificates of this node",
        "/nodes/{node}/certificates/info"),
    get("pve-state-cluster", "pve-cluster.json", "Cluster nodes and quorum", "/cluster/status"),
    state("pve-state-quorum", "pvecm-status.txt", "Votes and links", &["pvecm", "status"]),
    state("pve-state-members", "pvecm-nodes.txt", "Corosync members", &["pvecm", "nodes"]),
    get("pve-state-resources", "pve-resources.json", "Guests, storages and nodes",
        "/cluster/resources"),
    get("pve-state-ha", "pve-ha.json", "HA state", "/cluster/ha/status/current"),
    get("pve-state-replication", "pve-replication.json", "Replication state",
        "/nodes/{node}/replication"),
    state("pve-state-storage", "pvesm-status.txt", "Storage status", &["pvesm", "status"]),
    // Without skipsmart the list wakes sleeping disks.
    asked("pve-state-disks", "pve-disks.json", "Disks and their use",
        "/nodes/{node}/disks/list", &[("skipsmart", "1")]),
    get("pve-state-zfs", "pve-zfs.json", "ZFS pools", "/nodes/{node}/disks/zfs"),
    get("pve-state-lvm", "pve-lvm.json", "LVM volume groups", "/nodes/{node}/disks/lvm"),
    get("pve-state-thin", "pve-lvmthin.json", "LVM thin pools", "/nodes/{node}/disks/lvmthin"),
    get("pve-state-directories", "pve-directories.json", "Directory mounts",
        "/nodes/{node}/disks/directory"),
    get("pve-state-pci", "pve-pci.json", "PCI devices by IOMMU group",
        "/nodes/{node}/hardware/pci"),
    get("pve-state-network", "pve-network.json", "Interfaces as PVE reads them",
        "/nodes/{node}/network"),
    state("pve-state-users", "pve-users.json", "Users",
        &["pveum", "user", "list", "--output-format", "json"]),
    state("pve-state-roles", "pve-roles.json", "Roles with built-in ones",
        &["pveum", "role", "list", "--output-format", "json"]),
    get("pve-state-targets", "pve-notification-targets.json", "Notification targets with built-in ones",
        "/cluster/notifications/targets"),
    state("pve-state-ceph", "ceph-status.json", "Ceph status", ceph!("-s")),
    state("pve-state-ceph-mons", "ceph-mons.json", "Ceph monitors", ceph!("mon", "stat")),
    state("pve-state-ceph-tree", "ceph-osd-tree.json", "Ceph OSDs by host", ceph!("osd", "tree")),
    state("pve-state-ceph-use", "ceph-osd-df.json", "Ceph OSDs by use", ceph!("osd", "df")),
    state("pve-state-ceph-config", "ceph-config.json", "Ceph options kept in the monitors",
        ceph!("config", "dump")),
    secret(state("pve-state-ceph-auth", "ceph-auth.json", "Ceph users and keys", ceph!("auth", "ls"))),

    // Left out
    Item { id: "pve-virtual", title: "Virtual entries of /etc/pve", category: Category::Cluster,
        source: Source::LeftOut(&["/etc/pve/.version", "/etc/pve/.members", "/etc/pve/.vmlist",
            "/etc/pve/.rrd", "/etc/pve/.clusterlog", "/etc/pve/.debug", "/etc/pve/local",
            "/etc/pve/qemu-server", "/etc/pve/lxc", "/etc/pve/openvz"]),
        restore: RestoreRule::Never("pmxcfs creates them; the links only point into nodes/"), ..PVE },
    Item { id: "pve-locks", title: "Cluster locks", category: Category::Cluster,
        source: Source::LeftOut(&["/etc/pve/priv/lock", "/etc/pve/sdn/.lock"]),
        restore: RestoreRule::Never("held by running tasks"), ..PVE },
    Item { id: "pve-unfinished", title: "Unfinished writes of Proxmox", category: Category::Cluster,
        source: Source::LeftOut(&["/etc/*.tmp.[0-9]*", "/etc/network/*.tmp.[0-9]*", "/etc/pve/**/*.tmp.*",
            "/etc/pve/**/.fuse_hidden*", "/etc/pve/**/*.fw.new", "/etc/pve/corosync.conf.new",
            "/etc/pve/corosync.conf.bak"]),
        restore: RestoreRule::Never("leftovers of an unfinished write"), ..PVE },
    Item { id: "pve-ha-state", title: "HA run-time state", category: Category::Cluster,
        source: Source::LeftOut(&["/etc/pve/ha/manager_status", "/etc/pve/ha/crm_commands",
            "/etc/pve/nodes/*/lrm_status"]),
        restore: RestoreRule::Never("old commands to a running cluster: HA writes it itself"), ..PVE },
    Item { id: "pve-sdn-cache", title: "SDN caches", category: Category::Network,
        source: Source::LeftOut(&["/etc/pve/sdn/mac-cache.json", "/etc/pve/priv/macs.db",
            "/etc/pve/priv/ipam.db"]),
        restore: RestoreRule::Never("filled again by SDN; the databases are of old versions"), ..PVE },
    Item { id: "pve-job-state", title: "State of jobs", category: Category::Jobs,
        source: Source::LeftOut(&["/etc/pve/priv/jobs", "/var/lib/pve-manager"]),
        restore: RestoreRule::Never("last runs, replication progress, pending updates: written again"), ..PVE },
    Item { id: "pve-import", title: "Import work files", category: Category::Guests,
        source: Source::LeftOut(&["/etc/pve/priv/import", "/etc/pve/nodes/*/openvz/**"]),
        restore: RestoreRule::Never("temporary, or of OpenVZ, which no supported PVE runs"), ..PVE },
    Item { id: "pve-database-files", title: "Working files of the database", category: Category::Cluster,
        source: Source::LeftOut(&["/var/lib/pve-cluster/config.db-wal", "/var/lib/pve-cluster/config.db-shm",
            "/var/lib/pve-cluster/config.db.*.bak", "/var/lib/pve-cluster/.pmxcfs.lockfile",
            "/var/lib/pve-cluster/backup"]),
        restore: RestoreRule::Never("part of the consistent copy, or dumps from before a join"), ..NODE },
    Item { id: "pve-firewall-state", title: "Firewall run-time state", category: Category::Firewall,
        source: Source::LeftOut(&["/var/lib/pve-firewall"]),
        restore: RestoreRule::Never("pve-firewall creates it from the rules"), ..NODE },
    Item { id: "pve-ceph-data", title: "Data of Ceph daemons", category: Category::Storage,
        source: Source::LeftOut(&["/var/lib/ceph/mon/*/store.db/**", "/var/lib/ceph/crash",
            "/var/lib/ceph/tmp"]), restore: RestoreRule::Never("data that Ceph replicates itself"), ..NODE },
    Item { id: "pve-history", title: "Task logs and graphs", category: Category::Cluster,
        source: Source::LeftOut(&["/var/log/pve", "/var/lib/rrdcached"]),
        restore: RestoreRule::Never("a history, not a setting"), ..NODE },
];
