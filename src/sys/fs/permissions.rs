//! Who may do what with a file of ours: seen and set without following a link anywhere in its path.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};

use super::files;
use crate::model::report::Rights;

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionState {
    pub rights: Rights,
    pub folder: bool,
    /// Number of its names.
    pub names: u64,
}

/// `path` is absolute in the host. Errors: `NotFound`; `FilesystemLoop` for a link, in the path too.
pub fn of(root: &Path, path: &Path) -> io::Result<PermissionState> {
    held(&File::from(files::open_plain(root, path, OFlag::O_PATH)?))
}

/// Changes the mode of what was seen as `before`, unless it has become another since.
pub fn set(root: &Path, path: &Path, before: &PermissionState, mode: u32) -> io::Result<()> {
    let file = File::from(files::open_plain(root, path, OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
    let now = held(&file)?;
    if now != *before {
        return Err(io::Error::other("has changed during the run"));
    }
    if !now.folder && now.names > 1 {
        return Err(io::Error::other("has other names (hard links), which would change too"));
    }
    Ok(fchmod(&file, Mode::from_bits_truncate(mode))?)
}

fn held(file: &File) -> io::Result<PermissionState> {
    let meta = file.metadata()?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(io::Error::other("is not a file or directory"));
    }
    let rights = Rights { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() };
    Ok(PermissionState { rights, folder: meta.is_dir(), names: meta.nlink() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn no_link_is_followed_and_no_second_name_changed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/file"), "").unwrap();
        fs::set_permissions(at("a/file"), fs::Permissions::from_mode(0o644)).unwrap();
        symlink("a", at("way")).unwrap();
        symlink("a/file", at("link")).unwrap();
        for path in ["/way/file", "/link", "/a/../way/file"] {
            assert!(of(dir.path(), Path::new(path)).is_err(), "{path}");
        }
        let path = Path::new("/a/file");
        let held = of(dir.path(), path).unwrap();
        fs::hard_link(at("a/file"), at("second")).unwrap();
        let seen = of(dir.path(), path).unwrap();
        assert!(set(dir.path(), path, &seen, 0o600).unwrap_err().to_string().contains("other names"));
        assert!(set(dir.path(), path, &held, 0o600).unwrap_err().to_string().contains("during the run"));
        fs::remove_file(at("second")).unwrap();
        set(dir.path(), path, &held, 0o600).unwrap();
        assert_eq!(fs::metadata(at("a/file")).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}
