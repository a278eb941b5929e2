//! Digests that only this installation can make: of a short secret a plain hash is the secret itself.

use std::io::ErrorKind;

use anyhow::{Context, Result};
use ring::{digest, hmac, rand};

use super::hex;
use super::host_dir::HostDir;

const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
/// Half of it is shown: to find another text for it is beyond anyone.
const DIGEST_BYTES: usize = 16;
const PRIVATE: u32 = 0o600;
const MAX_BYTES: u64 = 4096;

pub struct HmacKey(hmac::Key);

impl HmacKey {
    /// Reads the key from a file; made, private, when there is none. Errors: it cannot be read or written, or is no key.
    pub fn of(dir: &HostDir, name: &str) -> Result<Self> {
        let path = dir.path().join(name);
        let shown = || format!("cannot read {}", path.display());
        let bytes = match dir.read(name, MAX_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let bytes = random()?;
                dir.replace(name, PRIVATE, &bytes)?;
                bytes.to_vec()
            }
            read => read.with_context(shown)?,
        };
        anyhow::ensure!(bytes.len() == KEY_BYTES, "{}: is not a key of pbx-config", path.display());
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Returns the digest of the parts, each with its length, so that no two lists give the same. Lower-case hex.
    pub fn digest<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        hex(&context.sign().as_ref()[..DIGEST_BYTES])
    }
}

fn random() -> Result<[u8; KEY_BYTES]> {
    let random = rand::generate(&rand::SystemRandom::new());
    Ok(random.ok().context("the kernel provides no random numbers")?.expose())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::sys::fs::files;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let own = HostDir::open(dir.path(), Path::new("/")).unwrap();
        let first = HmacKey::of(&own, "key").unwrap().digest([&b"x"[..]]);
        assert_eq!(HmacKey::of(&own, "key").unwrap().digest([&b"x"[..]]), first);
        assert!(files::is_private(&std::fs::metadata(dir.path().join("key")).unwrap()));
        let other = HmacKey::of(&own, "other").unwrap();
        assert_ne!(other.digest([&b"x"[..]]), first);
        std::fs::write(dir.path().join("key"), "short").unwrap();
        assert!(HmacKey::of(&own, "key").is_err());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let key = HmacKey::of(&HostDir::open(dir.path(), Path::new("/")).unwrap(), "key").unwrap();
        assert_ne!(key.digest([&b"ab"[..], b"c"]), key.digest([&b"a"[..], b"bc"]));
    }
}
