//! On which file system a path lies, and whether it may hang: told from the kernel's table, without touching
//! what may hang.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::files;

/// File systems of this machine's own disks and memory. All others are taken for ones that may hang: networks, FUSE,
/// automounts, and what is not known.
const LOCAL: [&str; 19] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "reiserfs", "jfs", "tmpfs", "ramfs",
    "rootfs", "overlay", "vfat", "msdos", "exfat", "ntfs3", "squashfs",
];
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

/// Where a path leads, with the links before the first file system that may hang, and the mount it lies on.
pub fn resolve(path: &Path) -> (PathBuf, Option<Mount>) {
    resolve_in(path, &table(&fs::read("/proc/self/mountinfo").unwrap_or_default()))
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
    let lines = text.split(|byte| *byte == b'\n').filter_map(files::parse_mount);
    lines.map(|(point, kind, source)| Mount { point, kind, source }).collect()
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
}
