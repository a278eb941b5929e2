//! Objects that an admin calls by name (`storage/nas`, `user/bob@pve`): their files, the grammar of each, and what
//! belongs to them. A kind is a fact about Proxmox; `plan::restore::objects` takes one out and puts it in.
//! Not here: which file belongs to which item (`items`), who asks for what.

use super::On;

/// One kind of thing. Kinds of the same name on both products are told apart by `pve/` and `pbs/`.
#[derive(Debug, Clone, Copy)]
pub struct ObjectKind {
    pub name: &'static str,
    pub title: &'static str,
    pub on: On,
    /// The first one says whether it exists; the others come along where they are.
    pub parts: &'static [ObjectPart],
    /// Things that name it elsewhere and come back by their own word.
    pub related: &'static [Related],
}

/// A place where something of it stands.
#[derive(Debug, Clone, Copy)]
pub struct ObjectPart {
    /// Relative to the root. `{id}` is the object, `{node}` any node, `{portal}` a key of its first section.
    pub path: &'static str,
    pub grammar: Grammar,
    pub whose: Whose,
}

/// The way a file says which part of it belongs to which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// The file is the object.
    Whole,
    /// `type: id` and the indented lines below it; of these types only, or of any when there are none.
    Sections(&'static [&'static str]),
    /// `id` and the indented lines below it.
    Bare,
    /// `word:id:…`, one line each, as in PVE's user.cfg.
    Lines(&'static str),
    /// `id:…` or `id …`, one line each.
    Keyed(u8),
    /// An entry of the JSON object that is found by these keys.
    Json(&'static [&'static str]),
    /// `acl:propagate:path:who,…:roles`: what names it.
    AclOf,
    /// Like `AclOf`: what is granted on this path.
    AclAt(&'static str),
    /// Its place in the list of other lines of that word: the field is counted from 0, the word being 0.
    Member { word: &'static str, field: usize },
}

/// The ids of a file that belong to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Itself,
    /// API tokens: `id!name`.
    Tokens,
    /// The name of a user of this realm, without the realm.
    NameIn(&'static str),
    /// The id is `type:name`.
    Typed,
}

/// A place where something else names the object, and the word that brings it back.
#[derive(Debug, Clone, Copy)]
pub struct Related {
    pub path: &'static str,
    pub grammar: Grammar,
    /// The whole id, or its beginning when it ends in `-`.
    pub id: &'static str,
    /// The kind's name, as in `ha/vm:100`.
    pub kind: &'static str,
    pub title: &'static str,
}

macro_rules! pve {
    ($path:literal) => {
        concat!("etc/pve/", $path)
    };
}
macro_rules! pbs {
    ($path:literal) => {
        concat!("etc/proxmox-backup/", $path)
    };
}

const USERS: &str = pve!("user.cfg");
const PBS_USERS: &str = pbs!("user.cfg");
const PBS_ACL: &str = pbs!("acl.cfg");

const fn part(path: &'static str, grammar: Grammar, whose: Whose) -> ObjectPart {
    ObjectPart { path, grammar, whose }
}

const fn file(path: &'static str) -> ObjectPart {
    part(path, Grammar::Whole, Whose::Itself)
}

const fn sections(path: &'static str) -> ObjectPart {
    typed(path, &[])
}

const fn typed(path: &'static str, types: &'static [&'static str]) -> ObjectPart {
    part(path, Grammar::Sections(types), Whose::Itself)
}

const fn line(word: &'static str) -> ObjectPart {
    part(USERS, Grammar::Lines(word), Whose::Itself)
}

const fn acl_at(at: &'static str) -> ObjectPart {
    part(USERS, Grammar::AclAt(at), Whose::Itself)
}

const fn pbs_acl_at(at: &'static str) -> ObjectPart {
    part(PBS_ACL, Grammar::AclAt(at), Whose::Itself)
}

const fn acl_of(path: &'static str) -> ObjectPart {
    part(path, Grammar::AclOf, Whose::Itself)
}

const fn member(word: &'static str, field: usize) -> ObjectPart {
    part(USERS, Grammar::Member { word, field }, Whose::Itself)
}

const BASE: ObjectKind = ObjectKind { name: "", title: "", on: On::Pve, parts: &[], related: &[] };
const PBS: ObjectKind = ObjectKind { on: On::Pbs, ..BASE };

/// The targets that notifications.cfg knows; the others there are matchers.
const TARGETS: &[&str] = &["sendmail", "gotify", "smtp", "webhook"];

/// Kinds in the order in which they must come back: who is named, before who names.
// One kind, one fact: laid out by hand, as rustfmt would give every field a line.
#[rustfmt::skip]
pub const KINDS: &[ObjectKind] = &[
    // Access
    ObjectKind { name: "realm", title: "Realm", parts: &[sections(pve!("domains.cfg")),
        file(pve!("priv/realm/{id}.pw")), file(pve!("priv/ldap/{id}.pw"))], ..BASE },
    ObjectKind { name: "role", title: "Role", parts: &[line("role")], ..BASE },
    ObjectKind { name: "user", title: "User with tokens, password, second factors, groups and permissions",
        parts: &[line("user"), part(USERS, Grammar::Lines("token"), Whose::Tokens), member("group", 2),
            acl_of(USERS),
            part(pve!("priv/shadow.cfg"), Grammar::Keyed(b':'), Whose::NameIn("pve")),
            part(pve!("priv/token.cfg"), Grammar::Keyed(b' '), Whose::Tokens),
            part(pve!("priv/tfa.cfg"), Grammar::Json(&["users"]), Whose::Itself)], ..BASE },
    ObjectKind { name: "token", title: "API token with its secret and permissions",
        parts: &[line("token"), acl_of(USERS),
            part(pve!("priv/token.cfg"), Grammar::Keyed(b' '), Whose::Itself)], ..BASE },
    ObjectKind { name: "group", title: "Group with its permissions", parts: &[line("group"), acl_of(USERS)], ..BASE },

    // Storage
    ObjectKind { name: "storage", title: "Storage with its password, keys and permissions",
        parts: &[sections(pve!("storage.cfg")), file(pve!("priv/storage/{id}.pw")),
            file(pve!("priv/storage/{id}.enc")), file(pve!("priv/storage/{id}.master.pem")),
            file(pve!("priv/ceph/{id}.keyring")), file(pve!("priv/ceph/{id}.secret")),
            file(pve!("priv/ceph/{id}.conf")), file(pve!("priv/zfs/{portal}_id_rsa")),
            acl_at("/storage/{id}"), member("pool", 4)], ..BASE },

    // What guests use
    ObjectKind { name: "mapping/pci", title: "PCI mapping",
        parts: &[part(pve!("mapping/pci.cfg"), Grammar::Bare, Whose::Itself), acl_at("/mapping/pci/{id}")],
        ..BASE },
    ObjectKind { name: "mapping/usb", title: "USB mapping",
        parts: &[part(pve!("mapping/usb.cfg"), Grammar::Bare, Whose::Itself), acl_at("/mapping/usb/{id}")],
        ..BASE },
    ObjectKind { name: "mapping/dir", title: "Directory mapping",
        parts: &[part(pve!("mapping/directory.cfg"), Grammar::Bare, Whose::Itself),
            acl_at("/mapping/dir/{id}")], ..BASE },
    ObjectKind { name: "cpu-model", title: "Custom CPU model",
        parts: &[sections(pve!("virtual-guest/cpu-models.conf"))], ..BASE },
    ObjectKind { name: "ipam", title: "SDN IPAM", parts: &[sections(pve!("sdn/ipams.cfg"))], ..BASE },
    ObjectKind { name: "dns", title: "SDN DNS service", parts: &[sections(pve!("sdn/dns.cfg"))], ..BASE },
    ObjectKind { name: "controller", title: "SDN controller", parts: &[sections(pve!("sdn/controllers.cfg"))],
        ..BASE },
    ObjectKind { name: "zone", title: "SDN zone", parts: &[sections(pve!("sdn/zones.cfg")),
        acl_at("/sdn/zones/{id}")], ..BASE },
    ObjectKind { name: "vnet", title: "SDN VNet with its firewall", parts: &[sections(pve!("sdn/vnets.cfg")),
        file(pve!("sdn/firewall/{id}.fw"))], ..BASE },
    ObjectKind { name: "subnet", title: "SDN subnet", parts: &[sections(pve!("sdn/subnets.cfg"))], ..BASE },
    ObjectKind { name: "fabric", title: "SDN fabric", parts: &[sections(pve!("sdn/fabrics.cfg"))], ..BASE },

    // Guests
    ObjectKind { name: "vm", title: "Virtual machine with its firewall and permissions",
        parts: &[file(pve!("nodes/{node}/qemu-server/{id}.conf")), file(pve!("firewall/{id}.fw")),
            acl_at("/vms/{id}"), member("pool", 3)], related: GUEST, ..BASE },
    ObjectKind { name: "ct", title: "Container with its firewall and permissions",
        parts: &[file(pve!("nodes/{node}/lxc/{id}.conf")), file(pve!("firewall/{id}.fw")),
            acl_at("/vms/{id}"), member("pool", 3)], related: GUEST, ..BASE },
    ObjectKind { name: "pool", title: "Pool with its permissions", parts: &[line("pool"), acl_at("/pool/{id}")],
        ..BASE },

    // Notifications
    ObjectKind { name: "target", title: "Notification target with its secret",
        parts: &[typed(pve!("notifications.cfg"), TARGETS), typed(pve!("priv/notifications.cfg"), TARGETS)],
        ..BASE },
    ObjectKind { name: "matcher", title: "Notification matcher",
        parts: &[typed(pve!("notifications.cfg"), &["matcher"])], ..BASE },
    ObjectKind { name: "metric", title: "Metric server with its token",
        parts: &[sections(pve!("status.cfg")), file(pve!("priv/metricserver/{id}.pw"))], ..BASE },
    ObjectKind { name: "acme-account", title: "ACME account", parts: &[file(pve!("priv/acme/{id}"))], ..BASE },
    ObjectKind { name: "acme-plugin", title: "ACME plugin", parts: &[sections(pve!("priv/acme/plugins.cfg"))],
        ..BASE },

    // What runs by itself
    ObjectKind { name: "job", title: "Backup or realm sync job", parts: &[sections(pve!("jobs.cfg"))], ..BASE },
    ObjectKind { name: "replication", title: "Replication job", parts: &[sections(pve!("replication.cfg"))], ..BASE },
    ObjectKind { name: "ha-group", title: "HA group", parts: &[sections(pve!("ha/groups.cfg"))], ..BASE },
    ObjectKind { name: "ha-rule", title: "HA rule", parts: &[sections(pve!("ha/rules.cfg"))], ..BASE },
    ObjectKind { name: "ha", title: "HA resource",
        parts: &[part(pve!("ha/resources.cfg"), Grammar::Sections(&[]), Whose::Typed)], ..BASE },

    // Proxmox Backup Server
    ObjectKind { name: "realm", title: "Realm with its bind password", parts: &[sections(pbs!("domains.cfg")),
        part(pbs!("ldap_passwords.json"), Grammar::Json(&[]), Whose::Itself)], ..PBS },
    ObjectKind { name: "user", title: "User with tokens, password, second factors and permissions",
        parts: &[typed(PBS_USERS, &["user"]), part(PBS_USERS, Grammar::Sections(&["token"]), Whose::Tokens),
            acl_of(PBS_ACL),
            part(pbs!("shadow.json"), Grammar::Json(&[]), Whose::NameIn("pbs")),
            part(pbs!("token.shadow"), Grammar::Json(&[]), Whose::Tokens),
            part(pbs!("tfa.json"), Grammar::Json(&["users"]), Whose::Itself)], ..PBS },
    ObjectKind { name: "token", title: "API token with its hash and permissions",
        parts: &[typed(PBS_USERS, &["token"]), acl_of(PBS_ACL),
            part(pbs!("token.shadow"), Grammar::Json(&[]), Whose::Itself)], ..PBS },
    ObjectKind { name: "s3", title: "S3 endpoint", parts: &[sections(pbs!("s3.cfg"))], ..PBS },
    ObjectKind { name: "key", title: "Encryption key of the server",
        parts: &[sections(pbs!("encryption-keys.cfg")), file(pbs!("encryption-keys/{id}.enc"))], ..PBS },
    ObjectKind { name: "datastore", title: "Datastore with its permissions",
        parts: &[sections(pbs!("datastore.cfg")), pbs_acl_at("/datastore/{id}")], ..PBS },
    ObjectKind { name: "remote", title: "Remote with its password and permissions",
        parts: &[sections(pbs!("remote.cfg")), pbs_acl_at("/remote/{id}")], ..PBS },
    ObjectKind { name: "traffic", title: "Traffic control rule", parts: &[sections(pbs!("traffic-control.cfg"))],
        ..PBS },
    ObjectKind { name: "drive", title: "Tape drive or changer", parts: &[sections(pbs!("tape.cfg")),
        pbs_acl_at("/tape/device/{id}")], ..PBS },
    ObjectKind { name: "media-pool", title: "Media pool", parts: &[sections(pbs!("media-pool.cfg")),
        pbs_acl_at("/tape/pool/{id}")], ..PBS },
    ObjectKind { name: "target", title: "Notification target with its secret",
        parts: &[typed(pbs!("notifications.cfg"), TARGETS), typed(pbs!("notifications-priv.cfg"), TARGETS)],
        ..PBS },
    ObjectKind { name: "matcher", title: "Notification matcher",
        parts: &[typed(pbs!("notifications.cfg"), &["matcher"])], ..PBS },
    ObjectKind { name: "metric", title: "Metric server with its token", parts: &[sections(pbs!("metricserver.cfg"))],
        ..PBS },
    ObjectKind { name: "acme-account", title: "ACME account", parts: &[file(pbs!("acme/accounts/{id}"))], ..PBS },
    ObjectKind { name: "acme-plugin", title: "ACME plugin", parts: &[sections(pbs!("acme/plugins.cfg"))], ..PBS },
    ObjectKind { name: "prune", title: "Prune job", parts: &[sections(pbs!("prune.cfg"))], ..PBS },
    ObjectKind { name: "verify", title: "Verify job", parts: &[sections(pbs!("verification.cfg"))], ..PBS },
    ObjectKind { name: "sync", title: "Sync job", parts: &[sections(pbs!("sync.cfg"))], ..PBS },
    ObjectKind { name: "tape-job", title: "Tape backup job", parts: &[sections(pbs!("tape-job.cfg"))], ..PBS },
];

const GUEST: &[Related] = &[
    Related {
        path: pve!("replication.cfg"),
        grammar: Grammar::Sections(&[]),
        id: "{id}-",
        kind: "replication",
        title: "was replicated",
    },
    Related {
        path: pve!("ha/resources.cfg"),
        grammar: Grammar::Sections(&["vm", "ct"]),
        id: "{id}",
        kind: "ha",
        title: "was kept running by HA",
    },
];

/// Other words for a kind.
pub const ALIASES: &[(&str, &str)] = &[
    ("qemu", "vm"),
    ("lxc", "ct"),
    ("container", "ct"),
    ("mapping/directory", "mapping/dir"),
    ("notification", "target"),
    ("backup-job", "job"),
    ("sync-job", "sync"),
    ("prune-job", "prune"),
    ("verify-job", "verify"),
    ("verification", "verify"),
    ("metricserver", "metric"),
];

/// Either kind of guest.
pub const GUEST_WORD: &str = "guest";
/// The kinds that `guest/…` stands for.
pub const GUEST_KINDS: [&str; 2] = ["vm", "ct"];
/// Any job of the product.
pub const JOB_WORD: &str = "job";
/// The kinds that `job/…` stands for beside PVE's own.
pub const JOB_KINDS: [&str; 5] = ["job", "prune", "verify", "sync", "tape-job"];

/// The directory of nodes, below the root.
pub const NODES: &str = pve!("nodes/");
/// Lines of PVE's user.cfg in the order in which its parser needs them.
pub const USER_WORDS: [&str; 6] = ["user", "token", "group", "pool", "role", "acl"];
