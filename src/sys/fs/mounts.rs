//! On which file system a path lies, and whether it may hang: told from the kernel's table, without touching
//! what may hang.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// File systems of this machine's own disks and memory. All others are taken for ones that may hang: networks, FUSE,
/// automounts, and what is not known.
const LOCAL: [&str; 19] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "reiserfs", "jfs", "tmpfs", "ramfs",
    "rootfs", "overlay", "vfat", "msdos", "exfat", "ntfs3", "squashfs",
];
/// This process's mounts, told without touching one.
const TABLE: &str = "/proc/self/mountinfo";
/// Links on the way to a path, as the kernel counts them.
const LINKS_MAX: usize = 40;

/// A line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    /// `ext4`, `nfs4`, `fuse.sshfs`.
    pub kind: String,
    /// `/dev/sda1`, `server:/export`.
    pub source: String,
}

impl Mount {
    pub fn may_hang(&self) -> bool {
        !LOCAL.contains(&self.kind.as_str())
    }
}

/// `nfs4 on server:/export`.
impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.kind, self.source)
    }
}

/// Resolves the links of a path up to the first file system that may hang. Returns the path and its mount.
pub fn resolve(path: &Path) -> (PathBuf, Option<Mount>) {
    resolve_in(path, &table(&fs::read(TABLE).unwrap_or_default()))
}

fn resolve_in(path: &Path, mounts: &[Mount]) -> (PathBuf, Option<Mount>) {
    // The last one covers those before it.
    let mount_of = |path: &Path| {
        let over = mounts.iter().filter(|mount| path.starts_with(&mount.point));
        over.max_by_key(|mount| mount.point.as_os_str().len())
    };
    let mut done = PathBuf::from("/");
    let mut rest: Vec<PathBuf> = parts(path);
    let mut links = 0;

    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            done.pop();
            continue;
        }
        let next = done.join(part);
        if mount_of(&next).is_some_and(Mount::may_hang) {
            done = rest.iter().rev().fold(next, |path, part| path.join(part));
            break;
        }
        match fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                rest.extend(parts(&target));
            }
            _ => done = next,
        }
    }

    let mount = mount_of(&done).cloned();
    (done, mount)
}

/// The last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

fn table(text: &[u8]) -> Vec<Mount> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(parse_mount);
    lines.map(|(point, kind, source)| Mount { point, kind, source }).collect()
}

/// True for a path (relative to the root) on a mount that may hang or is another system's data.
pub fn is_foreign(root: &Path, path: &Path) -> bool {
    let foreign = foreign_mounts(root);
    path.ancestors().any(|above| foreign.contains_key(above))
}

/// False on a file system that knows no owners and modes: what it shows of them was said when it was mounted.
pub fn has_rights(root: &Path, path: &Path) -> bool {
    const WITHOUT: [&str; 6] = ["vfat", "exfat", "msdos", "ntfs", "ntfs3", "hfsplus"];
    let path = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned()).join(path);
    let mounts = mounts().into_iter().filter(|(point, _)| path.starts_with(point));
    let kind = mounts.max_by_key(|(point, _)| point.as_os_str().len()).map(|(_, kind)| kind);
    kind.is_none_or(|kind| !WITHOUT.contains(&kind.as_str()))
}

/// The mounts below a folder, as /proc/self/mountinfo tells them without touching one: mount point and type.
pub fn mounts() -> Vec<(PathBuf, String)> {
    mounts_of(&fs::read(TABLE).unwrap_or_default())
}

/// The same from the text.
pub fn mounts_of(text: &[u8]) -> Vec<(PathBuf, String)> {
    text.split(|b| *b == b'\n').filter_map(parse_mount).map(|(point, kind, _)| (point, kind)).collect()
}

/// Mounts below `root` that may hang or are another system's data: network, FUSE, automounts.
/// Paths are relative to the root.
pub fn foreign_mounts(root: &Path) -> HashMap<PathBuf, String> {
    const KINDS: [&str; 12] = [
        "nfs", "cifs", "smb", "ceph", "gluster", "9p", "afs", "lustre", "beegfs", "fuse", "autofs",
        "virtiofs",
    ];
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let foreign = mounts().into_iter().filter(|(_, kind)| KINDS.iter().any(|known| kind.starts_with(known)));
    foreign.filter_map(|(point, kind)| Some((point.strip_prefix(&root).ok()?.to_owned(), kind))).collect()
}

/// `36 35 98:0 /root /mount/point opts - type source super`, octal escapes in the path, which is any bytes.
/// Mount point, type and source.
fn parse_mount(line: &[u8]) -> Option<(PathBuf, String, String)> {
    let mut fields = line.split(|b| *b == b' ');
    let point = fields.nth(4)?;
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(after.next()?).into_owned();
    let source = unescape(after.next().unwrap_or_default()).to_string_lossy().into_owned();
    Some((unescape(point), kind, source))
}

/// Octal escapes, as mountinfo and fstab write blanks.
pub fn unescape(mut rest: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            // Three digits of one byte; `from_str_radix` would take a sign for one.
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_is_told_by_the_longest_mount_and_the_last_of_the_same() {
        let mounts = table(
            b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /mnt/nas rw - autofs systemd-1 rw\n\
              3 2 0:6 / /mnt/nas rw shared:1 - nfs4 10.0.0.5:/export/a\\040b rw\n",
        );
        let (path, mount) = resolve_in(Path::new("/mnt/nas/pbx/store"), &mounts);
        let mount = mount.unwrap();
        assert_eq!(path, Path::new("/mnt/nas/pbx/store"));
        assert!(mount.may_hang());
        assert_eq!(mount.to_string(), "nfs4 on 10.0.0.5:/export/a b");
        let (_, mount) = resolve_in(Path::new("/mnt/nassau"), &mounts);
        assert!(!mount.unwrap().may_hang());
    }

    #[test]
    fn a_link_is_followed_until_it_leads_to_what_may_hang() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        std::os::unix::fs::symlink("../far/away", dir.join("near")).unwrap();
        let point = dir.parent().unwrap().join("far");
        let text =
            format!("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / {} rw - nfs a:/b rw\n", point.display());
        let (path, mount) = resolve_in(&dir.join("near/store"), &table(text.as_bytes()));
        assert_eq!(path, point.join("away/store"));
        assert_eq!(mount.unwrap().kind, "nfs");
        // One that leads to itself ends too.
        std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
        resolve_in(&dir.join("loop/x"), &table(text.as_bytes()));
    }

    #[test]
    fn a_mount_point_with_a_space_is_read() {
        let line = br"36 35 0:42 / /mnt/my\040disk rw - fuse /dev/fuse rw";
        assert_eq!(parse_mount(line).unwrap().0, Path::new("/mnt/my disk"));
        assert_eq!(parse_mount(line).unwrap().1, "fuse");
    }

    #[test]
    fn only_three_octal_digits_are_an_escape() {
        for (text, should) in [
            (&b"a\\040b"[..], &b"a b"[..]),
            (b"\\134040", b"\\040"),
            (b"\\377", b"\xff"),
            (b"\\400\\+12\\08", b"\\400\\+12\\08"),
            (b"\\04", b"\\04"),
        ] {
            assert_eq!(unescape(text).as_os_str().as_bytes(), should);
        }
    }

    #[test]
    fn a_mount_point_is_any_bytes() {
        let line = b"36 35 0:42 / /mnt/m\xfcll rw shared:1 master:2 - nfs4 host:/ rw";
        let point = PathBuf::from(std::ffi::OsStr::from_bytes(b"/mnt/m\xfcll"));
        let (there, kind, _) = parse_mount(line).unwrap();
        assert_eq!((there, kind.as_str()), (point, "nfs4"));
        assert_eq!(parse_mount(b"36 35 0:42 / /mnt rw"), None);
        assert_eq!(parse_mount(b""), None);
    }
}
