//! Memory that leaves no trace: no core dump of the program, and a few bytes that are not in swap either and are wiped
//! when they go.

use std::io;
use std::num::NonZero;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use zeroize::Zeroize;

/// Turns core dumps of this process off: its memory holds the host's keys. What it starts has none, too.
pub fn forbid_core_dumps() {
    // Only the soft limit, so that a script of the host's owner can raise it again.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
}

/// One page, of which `len` bytes are used. Zeros at first.
pub struct Locked {
    page: NonNull<libc::c_void>,
    len: usize,
}

const PAGE_BYTES: NonZero<usize> = NonZero::new(4096).unwrap();

// The page belongs to this value alone; `&self` only reads.
#[allow(unsafe_code)]
// SAFETY: see above.
unsafe impl Send for Locked {}
#[allow(unsafe_code)]
// SAFETY: see above.
unsafe impl Sync for Locked {}

impl Locked {
    /// Errors: more than a page, no memory, or more locked memory than this process may have.
    pub fn new(len: usize) -> io::Result<Self> {
        if len > PAGE_BYTES.get() {
            return Err(io::ErrorKind::InvalidInput.into());
        }

        let (prot, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        #[allow(unsafe_code)]
        // SAFETY: a new mapping, where the kernel wants it.
        let page = unsafe { mmap_anonymous(None, PAGE_BYTES, prot, flags) }?;

        // From here on `drop` unmaps it.
        let locked = Self { page, len };
        #[allow(unsafe_code)]
        // SAFETY: the page was just mapped, with this size.
        unsafe {
            madvise(page, PAGE_BYTES.get(), MmapAdvise::MADV_DONTDUMP)?;
            // A child that we fork has no business with it.
            madvise(page, PAGE_BYTES.get(), MmapAdvise::MADV_WIPEONFORK)?;
            mlock(page, PAGE_BYTES.get())?;
        }
        Ok(locked)
    }

    pub fn bytes(&self) -> &[u8] {
        #[allow(unsafe_code)]
        // SAFETY: mapped for as long as `self` lives, `len` is within the page, its bytes are initialised.
        unsafe {
            std::slice::from_raw_parts(self.page.as_ptr().cast(), self.len)
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        #[allow(unsafe_code)]
        // SAFETY: as in `bytes`, and `&mut self` is the only way to it.
        unsafe {
            std::slice::from_raw_parts_mut(self.page.as_ptr().cast(), self.len)
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        #[allow(unsafe_code)]
        // SAFETY: nothing borrows from `self` any more; unmapping unlocks.
        let _ = unsafe { munmap(self.page, PAGE_BYTES.get()) };
    }
}

/// Fills with what nobody can guess.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    use ring::rand::{SecureRandom, SystemRandom};
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("the kernel provides no random bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Reads the kernel's flags of the mapping at an address.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&format!("{address:x}-")));
        lines.find(|line| line.starts_with("VmFlags:")).unwrap_or_default().to_owned()
    }

    #[test]
    fn the_kernel_keeps_it_out_of_swap_and_of_core_dumps() {
        let mut locked = Locked::new(16).unwrap();
        locked.bytes_mut().copy_from_slice(b"0123456789abcdef");
        assert_eq!(locked.bytes(), b"0123456789abcdef");
        let flags = flags(locked.page.as_ptr() as usize);
        for flag in [" lo", " dd", " wf"] {
            assert!(flags.contains(flag), "{flag} is not among {flags}");
        }
        assert!(Locked::new(5000).is_err());
    }
}
