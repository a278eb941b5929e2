//! Digests that only this installation can make: of a short secret a plain hash is the secret itself.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use ring::{digest, hmac, rand};

use super::fs::files;
use super::hex;

const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
/// Half of it is shown: to find another text for it is beyond anyone.
const DIGEST_BYTES: usize = 16;
const PRIVATE: u32 = 0o600;

pub struct HmacKey(hmac::Key);

impl HmacKey {
    /// The key in this file; made, private, when there is none. Errors: it cannot be read or written, or is no key.
    pub fn of(path: &Path) -> Result<Self> {
        let shown = || format!("cannot read {}", path.display());
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let bytes = random()?;
                files::replace(path, PRIVATE, &bytes)?;
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
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = HmacKey::of(&path).unwrap().digest([&b"x"[..]]);
        assert_eq!(HmacKey::of(&path).unwrap().digest([&b"x"[..]]), first);
        assert!(files::is_private(&path).unwrap());
        let other = HmacKey::of(&dir.path().join("other")).unwrap();
        assert_ne!(other.digest([&b"x"[..]]), first);
        fs::write(&path, "short").unwrap();
        assert!(HmacKey::of(&path).is_err());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let key = HmacKey::of(&dir.path().join("key")).unwrap();
        assert_ne!(key.digest([&b"ab"[..], b"c"]), key.digest([&b"a"[..], b"bc"]));
    }
}
