//! Signatures over manifests: SSHSIG by the host's own SSH key, as `ssh-keygen -Y verify` checks them. A signature
//! says who wrote the manifest, and with it the payload's hash; that nothing else was removed, the chain of parents
//! says.

use std::fmt;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::recipient::fingerprint;

/// A signature of ours is one over a manifest and nothing else.
pub const NAMESPACE: &str = "pbx-config-manifest@proxmox-backup-extra";
pub const SIGNATURE_NAME: &str = "MANIFEST.sig";
/// No signature of this kind is larger.
pub const SIGNATURE_MAX_BYTES: u64 = 16 * 1024;
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const HASH: &str = "sha512";
const ED25519_NAME: &str = "ssh-ed25519";
const KEY_MAGIC: &[u8] = b"openssh-key-v1\0";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// The length at which ssh-keygen breaks its lines.
const LINE_CHARS: usize = 70;

/// The host's key, for the time of a run.
pub struct Signer {
    pair: Ed25519KeyPair,
    /// The public half as SSH stores it.
    blob: Vec<u8>,
}

impl Signer {
    /// Parses a private key file of OpenSSH without a passphrase, as the keys of hosts are.
    /// Errors: another kind of key, a locked one, a damaged file.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(file).context("is not text")?;
        let body = text
            .trim()
            .strip_prefix("-----BEGIN OPENSSH PRIVATE KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END OPENSSH PRIVATE KEY-----"))
            .context("is not a private key of OpenSSH")?;
        let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
        let bytes = Zeroizing::new(STANDARD.decode(body.as_bytes()).ok().context("is damaged")?);
        let mut rest = Fields(bytes.strip_prefix(KEY_MAGIC).context("is damaged")?);
        let (cipher, _kdf, _options) = (rest.string()?, rest.string()?, rest.string()?);
        ensure!(cipher == b"none", "is protected by a passphrase");
        ensure!(rest.number()? == 1, "holds more than one key");

        let blob = rest.string()?.to_vec();
        let mut secret = Fields(rest.string()?);
        ensure!(secret.number()? == secret.number()?, "is damaged");
        ensure!(secret.string()? == ED25519_NAME.as_bytes(), "is not an ed25519 key");

        let public = secret.string()?.to_vec();
        let (seed, again) = secret.string()?.split_at_checked(32).context("is damaged")?;
        ensure!(again == public && public_of(&blob)? == public, "is damaged");
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, &public).ok().context("is damaged")?;
        Ok(Self { pair, blob })
    }

    pub fn fingerprint(&self) -> String {
        fingerprint(&self.blob)
    }

    /// Always of the same length for a key.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = Vec::new();
        put(&mut signature, ED25519_NAME.as_bytes());
        put(&mut signature, self.pair.sign(&signed(message)).as_ref());
        let mut blob = MAGIC.to_vec();
        blob.extend_from_slice(&VERSION.to_be_bytes());
        put(&mut blob, &self.blob);
        for field in [NAMESPACE.as_bytes(), b"", HASH.as_bytes(), &signature] {
            put(&mut blob, field);
        }
        let text = STANDARD.encode(blob);
        let lines: Vec<&str> =
            text.as_bytes().chunks(LINE_CHARS).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")).into_bytes()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", fingerprint(self.pair.public_key().as_ref()))
    }
}

/// Verifies a signature and returns the signer: the fingerprint of the key, as `ssh-keygen -l` prints it.
/// Errors: it is damaged, not over this manifest, or not of a kind that we write.
pub fn check(signature: &[u8], manifest: &[u8]) -> Result<String> {
    const BAD: &str = "its signature is not valid";
    let (blob, signature) = parse(signature).context(BAD)?;
    let public = public_of(&blob).context(BAD)?;
    let key = UnparsedPublicKey::new(&ED25519, public);
    key.verify(&signed(manifest), &signature).ok().context(BAD)?;
    Ok(fingerprint(&blob))
}

/// The public key and the signature of an armored SSHSIG in our namespace.
fn parse(armored: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(armored)?.trim();
    let body = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).context("no signature")?;
    let bytes = STANDARD.decode(body.split_whitespace().collect::<String>())?;
    let mut rest = Fields(bytes.strip_prefix(MAGIC).context("no signature")?);
    ensure!(rest.number()? == VERSION, "another version");
    let key = rest.string()?.to_vec();
    ensure!(rest.string()? == NAMESPACE.as_bytes(), "signed for something else");
    let (_reserved, hash) = (rest.string()?, rest.string()?);
    ensure!(hash == HASH.as_bytes(), "another hash");
    let mut signature = Fields(rest.string()?);
    ensure!(signature.string()? == ED25519_NAME.as_bytes(), "another kind of key");
    Ok((key, signature.string()?.to_vec()))
}

/// Builds the bytes that are really signed.
fn signed(message: &[u8]) -> Vec<u8> {
    let mut data = MAGIC.to_vec();
    for field in [NAMESPACE.as_bytes(), b"", HASH.as_bytes(), &Sha512::digest(message)] {
        put(&mut data, field);
    }
    data
}

/// The 32 bytes of an ed25519 key in SSH's form.
fn public_of(blob: &[u8]) -> Result<Vec<u8>> {
    let mut fields = Fields(blob);
    ensure!(fields.string()? == ED25519_NAME.as_bytes(), "is not an ed25519 key");
    Ok(fields.string()?.to_vec())
}

/// SSH's strings and numbers, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Result<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>().context("is cut short")?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let len = usize::try_from(self.number()?)?;
        let (string, rest) = self.0.split_at_checked(len).context("is cut short")?;
        self.0 = rest;
        Ok(string)
    }
}

fn put(out: &mut Vec<u8>, field: &[u8]) {
    // No field of ours comes near 4 GiB.
    out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(field);
}

/// Keys that are trusted to sign, by their fingerprints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers(Vec<String>);

impl Signers {
    /// `SHA256:…`.
    pub fn of_fingerprint(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SHA256:")?.trim_end_matches('=');
        // 32 bytes in base64.
        (rest.len() == 43 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b)))
            .then(|| Self(vec![format!("SHA256:{rest}")]))
    }

    /// Every ed25519 key in a text: a `.pub` file, `allowed_signers`, `known_hosts`.
    pub fn of_file(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let key = |line: &str| {
            let mut words = line.split_whitespace().skip_while(|word| *word != ED25519_NAME).skip(1);
            let blob = STANDARD.decode(words.next()?).ok()?;
            public_of(&blob).is_ok().then(|| fingerprint(&blob))
        };
        Self(lines.filter_map(key).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, fingerprint: &str) -> bool {
        self.0.iter().any(|one| one == fingerprint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn junk_is_no_key_and_no_signature() {
        for junk in [
            &b""[..],
            b"\xff",
            b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        ] {
            assert!(Signer::parse(junk).is_err() && check(junk, b"").is_err());
        }
        let armored = |bytes: &[u8]| format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(bytes));
        for bytes in
            [&b"SSHSIG"[..], b"SSHSIG\0\0\0\x01\xff\xff\xff\xff", b"SSHSIG\0\0\0\x01\0\0\0\0\0\0\0\0"]
        {
            assert!(check(armored(bytes).as_bytes(), b"").is_err());
        }
    }

    #[test]
    fn signers_are_known_by_print_or_by_what_ssh_keeps() {
        let key = "AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
        let print = "SHA256:PYX4o9UfGwCwG76hFcLAEkmMS0PtIBtV9MNmVgW16Oc";
        for text in [
            format!("ssh-ed25519 {key} root@pve1"),
            format!("# hosts\npve1,192.0.2.1 ssh-ed25519 {key}\npve1 ssh-rsa AAAA\n"),
            format!("root@pve1 namespaces=\"{NAMESPACE}\" ssh-ed25519 {key}"),
        ] {
            assert!(Signers::of_file(&text).has(print), "{text}");
        }
        assert!(Signers::of_fingerprint(print).unwrap().has(print));
        assert!(
            Signers::of_fingerprint("SHA256:x").is_none() && Signers::of_file("ssh-ed25519 AAAA").is_empty()
        );
    }
}
