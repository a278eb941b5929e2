//! Room on a file system, and the kernel's word on its clock.
#![allow(unsafe_code)] // adjtimex

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use super::child::{self, Answer};

/// A local disk answers at once; a dead share never.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this user may still write.
    pub bytes: u64,
    /// Files that can still be made; None where the file system has no such limit.
    pub files: Option<u64>,
}

/// Of the file system that holds `path`, or would hold it. None: it does not answer, or does not tell.
pub fn of(path: &Path) -> Option<Space> {
    let answer = child::run(LIMIT, |pipe| {
        if let Some(space) = path.ancestors().find_map(now) {
            let _ = write!(pipe, "{} {}", space.bytes, space.files.unwrap_or(u64::MAX));
        }
    });
    let Ok(Answer::Done(data)) = answer else { return None };
    let (bytes, files) = std::str::from_utf8(&data).ok()?.split_once(' ')?;
    let files = files.parse().ok().filter(|files| *files != u64::MAX);
    Some(Space { bytes: bytes.parse().ok()?, files })
}

/// The same of a local disk, without a child process.
pub fn now(path: &Path) -> Option<Space> {
    let found = statvfs(path).ok()?;
    let files = (found.files() > 0).then(|| found.files_available());
    Some(Space { bytes: found.blocks_available().saturating_mul(found.fragment_size()), files })
}

/// Whether something keeps the kernel's clock right. None: the kernel does not tell.
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
}
