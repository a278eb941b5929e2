//! What keeps even root from changing a path: attributes of `chattr`, a file system that is mounted read-only.
#![allow(unsafe_code)] // statx

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// `chattr +i`
    Immutable,
    /// `chattr +a`
    AppendOnly,
}

/// Reads the flag of the path itself, not of a link's target. None also on a file system without such attributes.
pub fn flag(path: &Path) -> io::Result<Option<Flag>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut state = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name ends with a zero, and the kernel fills in a `statx`, for which all-zero bytes are valid.
    if unsafe { libc::statx(libc::AT_FDCWD, name.as_ptr(), flags, 0, state.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was valid before, and the kernel filled it in.
    let set = unsafe { state.assume_init() }.stx_attributes;
    let is_set = |attribute: i32| set & u64::from(attribute.unsigned_abs()) != 0;
    Ok(if is_set(libc::STATX_ATTR_IMMUTABLE) {
        Some(Flag::Immutable)
    } else {
        is_set(libc::STATX_ATTR_APPEND).then_some(Flag::AppendOnly)
    })
}

/// Reports whether the file system of the path is mounted read-only.
pub fn is_read_only(path: &Path) -> io::Result<bool> {
    Ok(statvfs(path)?.flags().contains(FsFlags::ST_RDONLY))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_plain_file_is_kept_by_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(flag(dir.path()).unwrap(), None);
        assert!(!is_read_only(dir.path()).unwrap());
        assert!(flag(&dir.path().join("none")).is_err());
    }
}
