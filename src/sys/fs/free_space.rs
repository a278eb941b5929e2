//! Room on a file system, and the kernel's word on its clock.
#![allow(unsafe_code)] // adjtimex

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use super::files;
use crate::sys::process::forked::{self, ChildResult};

/// A local disk answers at once; a dead share never.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Bytes as `df` shows them: what every user may still write. This is the number that people are told.
    pub bytes: u64,
    /// Bytes that this process may write; for root what is reserved for it comes on top. Only what would not fit
    /// into these is refused.
    pub ours: u64,
    /// Files that can still be made; None where the file system has no such limit.
    pub files: Option<u64>,
}

/// Returns the space of the file system that holds `path`, or would hold it. None: it does not answer or tell.
pub fn of(path: &Path) -> Option<Space> {
    match forked::run(LIMIT, || path.ancestors().find_map(|path| now(path).ok())) {
        Ok(ChildResult::Finished(space)) => space,
        Ok(ChildResult::TimedOut) | Err(_) => None,
    }
}

/// The same of what is there and answers: a local disk.
pub fn now(path: &Path) -> io::Result<Space> {
    let found = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    let ours = if files::is_root() { found.blocks_free() } else { found.blocks_available() };
    let files = (found.files() > 0).then(|| found.files_available());
    Ok(Space { bytes: bytes(found.blocks_available()), ours: bytes(ours), files })
}

/// Reports whether the kernel's clock is synchronised. None: the kernel does not tell.
pub fn clock_is_synchronised() -> Option<bool> {
    let mut state = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all-zero bytes are a valid `timex`; its `modes` is then 0, which only asks.
    let said = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    if said < 0 {
        return None;
    }
    // SAFETY: it was valid before, and the kernel filled it in.
    let state = unsafe { state.assume_init() };
    Some(state.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn room_is_that_of_the_folder_that_will_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let here = of(dir.path()).unwrap();
        let there = of(&dir.path().join("not/yet")).unwrap();
        assert!(here.bytes > 0 && here.bytes.abs_diff(there.bytes) < 1 << 30);
    }
    #[test]
    fn people_are_told_what_df_tells() {
        let dir = tempfile::tempdir().unwrap();
        let df = std::process::Command::new("df").args(["-B1", "--output=avail"]).arg(dir.path()).output();
        let df: u64 =
            String::from_utf8(df.unwrap().stdout).unwrap().lines().nth(1).unwrap().trim().parse().unwrap();
        let space = now(dir.path()).unwrap();
        assert!(space.bytes.abs_diff(df) < 1 << 30 && space.ours >= space.bytes, "{space:?}, df: {df}");
    }
}
