//! Files that are merged and never replaced, each by what makes two of its lines the same thing.
//! Not here: merging (`plan::restore::merge`).

/// The subject of a line, so that none is added twice or against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// `name:password:uid:…`, `name:password:gid:members`, and their private halves.
    Users,
    Groups,
    UserSecrets,
    GroupSecrets,
    /// `name:start:count`.
    SubIds,
    /// `options type key comment`: the key.
    LoginKeys,
    /// `hosts type key`: a host has one key of a type.
    HostKeys,
    /// `device mountpoint type options`: what is mounted where, and only what is there.
    Mounts,
    /// `name device key options`.
    EncryptedVolumes,
    /// Any line that is not there yet.
    Lines,
}

pub const PASSWD: &str = "etc/passwd";
pub const GROUP: &str = "etc/group";

/// Merged files by path, relative to the root.
const MERGES: [(&str, Merge); 14] = [
    (PASSWD, Merge::Users),
    (GROUP, Merge::Groups),
    ("etc/shadow", Merge::UserSecrets),
    ("etc/gshadow", Merge::GroupSecrets),
    ("etc/subuid", Merge::SubIds),
    ("etc/subgid", Merge::SubIds),
    ("etc/fstab", Merge::Mounts),
    ("etc/crypttab", Merge::EncryptedVolumes),
    ("root/.ssh/authorized_keys", Merge::LoginKeys),
    ("root/.ssh/authorized_keys2", Merge::LoginKeys),
    ("etc/pve/priv/authorized_keys", Merge::LoginKeys),
    ("root/.ssh/known_hosts", Merge::HostKeys),
    ("etc/ssh/ssh_known_hosts", Merge::HostKeys),
    ("etc/pve/priv/known_hosts", Merge::HostKeys),
];

pub fn of(path: &str) -> Merge {
    MERGES.iter().find(|(known, _)| *known == path).map_or(Merge::Lines, |(_, merge)| *merge)
}

/// Debian gives people these numbers; below them are root and the system, 65534 is nobody.
pub const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=59_999;
/// The account whose subordinate ids count though it is no person: unprivileged containers use them.
pub const ROOT: &str = "root";

/// Mounts that a host boots from: the installer wrote these lines for the disks that are here.
pub const BOOT_MOUNTS: [&str; 8] =
    ["/", "/boot", "/boot/efi", "/boot/firmware", "/usr", "/var", "/etc", "/root"];
/// Begins the first field of a mount that needs no device here.
pub const REMOTE: [&str; 1] = ["//"];
/// File systems of a network or of none.
pub const NO_DEVICE: [&str; 22] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "glusterfs",
    "ceph",
    "fuse.ceph",
    "fuse.sshfs",
    "sshfs",
    "davfs",
    "9p",
    "tmpfs",
    "proc",
    "sysfs",
    "devpts",
    "devtmpfs",
    "hugetlbfs",
    "cgroup2",
    "debugfs",
    "overlay",
    "bind",
    "none",
];
/// Tags of a device by what is written on it, and the directory where udev shows each.
pub const DEVICE_TAGS: [(&str, &str); 4] = [
    ("UUID", "/dev/disk/by-uuid/"),
    ("LABEL", "/dev/disk/by-label/"),
    ("PARTUUID", "/dev/disk/by-partuuid/"),
    ("PARTLABEL", "/dev/disk/by-partlabel/"),
];
