//! Places where files name a node, a NIC, a storage or a bridge, so that a new name can be put there.
//! Not here: putting it there (`plan::restore::adapt::references`, `plan::restore::adapt::nics`).

use std::path::Path;

use crate::catalog::objects::NODES;

/// A place in a file that holds names.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// Relative to the root; `{…}` is any one component, or any part of one.
    pub path: &'static str,
    pub form: ReferenceForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceForm {
    /// `key name,name:2;name`: an indented line of a section, a list; a priority may follow a name.
    Key(&'static str),
    /// `key a=b,sub=name`: an indented line of a section.
    Property { key: &'static str, sub: &'static str },
    /// The header of a section of a type that ends so: `type: other_name`.
    HeaderEnd(&'static str),
    /// `acl:1:/before/name:…`: the component of the path that follows.
    AclPath(&'static str),
    /// `… -option name …`: a rule of the firewall.
    RuleOption(&'static [&'static str]),
    /// JSON: below one of these keys, a text, a list of them, or the keys of an object.
    Json(&'static [&'static str]),
    /// Anywhere as a whole word; a domain may follow.
    Words,
    /// Like `Words`, but only in lines with one of these before `=`.
    Assigned(&'static [&'static str]),
}

macro_rules! pve {
    ($path:literal) => {
        concat!("etc/pve/", $path)
    };
}

const fn key(path: &'static str, key: &'static str) -> Reference {
    Reference { path, form: ReferenceForm::Key(key) }
}

const fn property(path: &'static str, key: &'static str, sub: &'static str) -> Reference {
    Reference { path, form: ReferenceForm::Property { key, sub } }
}

const fn words(path: &'static str) -> Reference {
    Reference { path, form: ReferenceForm::Words }
}

/// Places that name this host itself.
pub const NODE_NAMES: &[Reference] = &[
    key(pve!("storage.cfg"), "nodes"),
    key(pve!("jobs.cfg"), "node"),
    key(pve!("replication.cfg"), "target"),
    key(pve!("replication.cfg"), "source"),
    key(pve!("ha/groups.cfg"), "nodes"),
    key(pve!("ha/rules.cfg"), "nodes"),
    property(pve!("mapping/{file}.cfg"), "map", "node"),
    key(pve!("sdn/zones.cfg"), "nodes"),
    key(pve!("sdn/zones.cfg"), "exitnodes"),
    key(pve!("sdn/zones.cfg"), "exitnodes-primary"),
    key(pve!("sdn/controllers.cfg"), "node"),
    Reference { path: pve!("sdn/fabrics.cfg"), form: ReferenceForm::HeaderEnd("_node") },
    Reference {
        path: pve!("sdn/.running-config"),
        form: ReferenceForm::Json(&["nodes", "exitnodes", "exitnodes-primary", "node", "node_id"]),
    },
    property(pve!("notifications.cfg"), "match-field", "exact:hostname"),
    property("etc/proxmox-backup/notifications.cfg", "match-field", "exact:hostname"),
    Reference { path: pve!("user.cfg"), form: ReferenceForm::AclPath("/nodes/") },
    words("etc/hostname"),
    words("etc/hosts"),
    words("etc/mailname"),
    words("etc/postfix/main.cf"),
];

/// A file in which a node's name is more than a word, so that a new one cannot be put there.
#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    /// Relative to the root.
    pub path: &'static str,
    pub why: &'static str,
    /// `{old}` and `{new}` are the node's names.
    pub hint: &'static str,
}

/// A monitor's name is in its store and in the map of all monitors.
pub const FIXED_NODE_NAMES: &[Fixed] = &[Fixed {
    path: pve!("ceph.conf"),
    why: "names its Ceph daemons, and those cannot be renamed",
    hint: "while that Ceph cluster is running: `pveceph mon create` on {new}, then `pveceph mon destroy {old}`; \
           `--only pve-ceph` restores it as it is",
}];

/// Network cards.
pub const CARD_NAMES: &[Reference] = &[
    words("etc/network/interfaces"),
    words("etc/network/interfaces.d/{file}"),
    Reference { path: "usr/local/lib/systemd/network/{file}.link", form: LINK_NAME },
    Reference { path: "etc/systemd/network/{file}.link", form: LINK_NAME },
    Reference { path: "etc/systemd/network/{file}.network", form: ReferenceForm::Assigned(&["Name"]) },
    Reference { path: "etc/udev/rules.d/{file}-persistent-net.rules", form: ReferenceForm::Words },
    Reference { path: pve!("firewall/cluster.fw"), form: ReferenceForm::RuleOption(RULE_INTERFACE) },
    Reference { path: pve!("nodes/{node}/host.fw"), form: ReferenceForm::RuleOption(RULE_INTERFACE) },
    property(pve!("sdn/fabrics.cfg"), "interfaces", "name"),
    key(pve!("sdn/controllers.cfg"), "isis-ifaces"),
    key(pve!("sdn/controllers.cfg"), "loopback"),
];

const LINK_NAME: ReferenceForm = ReferenceForm::Assigned(&["Name", "OriginalName"]);

/// Folders of .link files, and answers of the state that tell cards by their addresses.
pub const LINK_FILES: [&str; 2] = ["usr/local/lib/systemd/network/", "etc/systemd/network/"];
pub const CARD_LINKS: &str = "ip-link.json";
pub const ADDRESSES: &str = "ip-address.json";

pub fn is_link_file(path: &str) -> bool {
    let is_link = Path::new(path).extension().is_some_and(|end| end == "link");
    is_link && LINK_FILES.iter().any(|folder| path.starts_with(folder))
}

/// Files that tell cards by their addresses.
pub fn tells_addresses(path: &str) -> bool {
    path.starts_with("etc/udev/") || LINK_FILES.iter().any(|folder| path.starts_with(folder))
}

/// Keywords of an interfaces file: those that bring a link up by itself, and those that say what it is made of.
pub const START_KEYS: [&str; 3] = ["auto", "allow-auto", "allow-hotplug"];
pub const PORT_KEYS: [&str; 10] = [
    "bridge-ports",
    "bridge_ports",
    "bond-slaves",
    "bond_slaves",
    "slaves",
    "vlan-raw-device",
    "vlan_raw_device",
    "ovs_ports",
    "ovs_bonds",
    "batman-ports",
];

/// Reports whether ifupdown reads the file.
pub fn is_interfaces(path: &str) -> bool {
    path == "etc/network/interfaces" || path.starts_with("etc/network/interfaces.d/")
}

/// Files beside `CARD_NAMES` in which a card may be named; an admin looks at them.
pub fn names_cards(path: &str) -> bool {
    NAME_CARDS.iter().any(|start| path.starts_with(start))
}

const NAME_CARDS: [&str; 14] = [
    "etc/wireguard/",
    "etc/sysctl.d/",
    "etc/sysctl.conf",
    "etc/nftables",
    "etc/iptables",
    "etc/dnsmasq",
    "etc/frr/",
    "etc/netplan/",
    "etc/keepalived/",
    "etc/lldpd",
    "etc/default/",
    "etc/dhcp/",
    "etc/ufw/",
    "etc/systemd/network/",
];

const RULE_INTERFACE: &[&str] = &["-i", "-iface"];

/// Returns the name of the node whose directory in /etc/pve holds the path, and the rest of the path.
pub fn of_node(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(NODES)?.split_once('/')
}

// ---- configurations of guests

/// A disk, by a number behind the word: `scsi0`, `mp3`.
pub const NUMBERED_DISKS: [&str; 8] =
    ["ide", "sata", "scsi", "virtio", "efidisk", "tpmstate", "unused", "mp"];
/// A disk without a number.
pub const SINGLE_DISKS: [&str; 2] = ["rootfs", "vmstate"];
/// The bare first value of a disk may have its name before it.
pub const DISK_WORDS: [&str; 3] = ["file", "volume", "import-from"];
/// Keys whose value is one volume that is no disk of the guest.
pub const SINGLE_FILES: [&str; 1] = ["hookscript"];
/// Keys whose parts are volumes: `user=local:snippets/a.yaml,network=…`.
pub const FILE_LISTS: [&str; 1] = ["cicustom"];
/// A network card of a guest, and the part that names its bridge.
pub const GUEST_CARD: (&str, &str) = ("net", "bridge");
/// Prefixes of PVE's volume names: one of these, the guest's id, and what it is for. A base is shared by its clones.
pub const OWNED: [&str; 4] = ["vm", "subvol", "basevol", "base"];
