//! Identities, the private halves: files of age's and SSH's keys, locked ones too, plugins, passphrases. One alone;
//! all that may open something are `keys`.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use age::secrecy::{ExposeSecret, SecretString};
use anyhow::{Context, Result, ensure};
use bech32::{Bech32, Hrp};
use zeroize::{Zeroize, Zeroizing};

use super::recipient::{Derivation, Recipient, at, no_plugin};
use super::seal::{self, HeldFileKey};
use crate::model::problem::{Fault, FaultKind};
use crate::model::snapshot::Sealed;
use crate::sys::input;

/// Far more than any key takes.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// The limit for a file of identities that is itself locked by a passphrase: 1 GiB and some seconds.
const WORK_FACTOR_MAX: u8 = 20;
/// A plugin may ask for a finger on a token.
const PLUGIN_LIMIT: Duration = Duration::from_secs(120);

/// One private key.
#[derive(Clone)]
pub struct Identity {
    key: Key,
    /// The file that it came from; empty for what was typed.
    pub path: PathBuf,
}

#[derive(Clone)]
enum Key {
    X25519(age::x25519::Identity),
    Ssh(Box<age::ssh::Identity>),
    Plugin(age::plugin::Identity),
    /// A file of identities that a passphrase locks, as it is.
    Locked(Arc<Vec<u8>>),
    Held(HeldFileKey),
}

impl Identity {
    pub fn generate() -> Self {
        Self { key: Key::X25519(age::x25519::Identity::generate()), path: PathBuf::new() }
    }

    /// Makes the identity of one payload from the key that encrypted it.
    pub(super) fn of_held(held: HeldFileKey) -> Self {
        Self { key: Key::Held(held), path: PathBuf::new() }
    }

    pub fn of_passphrase(passphrase: &str, derivation: &Derivation) -> Result<Self> {
        Self::of_bytes(&*derivation.derive(passphrase)?)
    }

    /// age takes a key by its text only.
    fn of_bytes(bytes: &[u8; 32]) -> Result<Self> {
        let mut text = bech32::encode::<Bech32>(Hrp::parse("age-secret-key-")?, bytes)?;
        text.make_ascii_uppercase();
        let key = text.parse().map_err(anyhow::Error::msg);
        text.zeroize();
        Ok(Self { key: Key::X25519(key?), path: PathBuf::new() })
    }

    /// Reads the identity of a line. None: the line is not an identity.
    pub fn of_line(line: &str) -> Option<Self> {
        let key = line.trim().parse().map(Key::X25519);
        let key = key.or_else(|_| line.trim().parse().map(Key::Plugin)).ok()?;
        Some(Self { key, path: PathBuf::new() })
    }

    /// The identities of a file: age's, one a line, as it is or locked by `age -p`; or a private SSH key.
    /// Errors: `Unseal`, with the line, never with what stands in it.
    pub fn of_file(path: &Path) -> Result<Vec<Self>> {
        let place = path.display().to_string();
        let fault = |what: &str| {
            Fault::unseal(what)
                .hint("use a file with lines that begin with AGE-SECRET-KEY-1, or a private SSH key")
        };
        let read = input::read(path, FILE_MAX_BYTES);
        let bytes = read.map_err(|error| Fault::unseal(format!("cannot read {place}: {error}")))?;
        let found = Self::of_bytes_of_file(&bytes).map_err(|error| at(&place, &error))?;
        ensure!(!found.is_empty(), fault(&format!("{place}: contains no identity")));
        Ok(found.into_iter().map(|one| Self { path: path.to_owned(), ..one }).collect())
    }

    fn of_bytes_of_file(bytes: &[u8]) -> Result<Vec<Self>> {
        let bare = |key| vec![Self { key, path: PathBuf::new() }];
        if bytes.starts_with(b"age-encryption.org/")
            || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
        {
            return Ok(bare(Key::Locked(Arc::new(bytes.to_vec()))));
        }

        let fault = |what: String| Fault::unseal(what);
        let text = std::str::from_utf8(bytes).map_err(|_| fault("is not a file of age identities".into()))?;
        if text.trim_start().starts_with("-----BEGIN ") {
            let key = age::ssh::Identity::from_buffer(text.trim_start().as_bytes(), None)
                .map_err(|_| fault("is not a private SSH key that age can use".into()))?;
            if matches!(key, age::ssh::Identity::Unsupported(_)) {
                return Err(fault("is an SSH key of a type that age cannot use".into())
                    .hint("ssh-ed25519 and ssh-rsa work; `ssh-keygen -p -f FILE` converts an old file format")
                    .into());
            }
            return Ok(bare(Key::Ssh(Box::new(key))));
        }

        let mut found = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            found.push(Self::of_line(line).with_context(|| {
                let fault = fault(format!("line {} is not an identity", n + 1));
                if Recipient::parse(line).is_ok() {
                    fault.hint("it is a recipient, the public key; an identity begins with AGE-SECRET-KEY-1")
                } else {
                    fault.hint("an identity begins with AGE-SECRET-KEY-1; the rest may be a damaged copy")
                }
            })?);
        }
        Ok(found)
    }

    /// A secret: for the one place that the person named.
    pub fn to_text(&self) -> Option<Zeroizing<String>> {
        match &self.key {
            Key::X25519(key) => Some(Zeroizing::new(key.to_string().expose_secret().to_owned())),
            Key::Plugin(key) => Some(Zeroizing::new(key.to_string())),
            _ => None,
        }
    }

    /// The public half. Errors: `Usage` where only a plugin or a passphrase knows it.
    pub fn recipient(&self) -> Result<Recipient> {
        let fault = |what: String| Fault::usage(what);
        match &self.key {
            Key::X25519(key) => Ok(key.to_public().into()),
            Key::Ssh(key) => age::ssh::Recipient::try_from(key.as_ref().clone())
                .map(Into::into)
                .map_err(|_| fault("is an SSH key of a type that age cannot encrypt to".into()).into()),
            Key::Plugin(key) => {
                let name = key.plugin();
                Err(fault(format!("only age-plugin-{name} knows its recipient"))
                    .hint("the file that it wrote contains the recipient in a comment")
                    .into())
            }
            Key::Locked(_) | Key::Held(_) => Err(fault("is protected by a passphrase".into()).into()),
        }
    }

    pub(super) fn fingerprint(&self) -> Option<String> {
        self.recipient().ok().map(|recipient| recipient.fingerprint())
    }

    pub fn is_locked(&self) -> bool {
        match &self.key {
            Key::Locked(_) => true,
            Key::Ssh(key) => matches!(key.as_ref(), age::ssh::Identity::Encrypted(_)),
            _ => false,
        }
    }

    /// False only when the manifest's fingerprints say so.
    pub(super) fn may_open(&self, sealed: Option<&Sealed>) -> bool {
        let known = sealed.map(|sealed| &sealed.fingerprints[..]).unwrap_or_default();
        known.is_empty() || self.fingerprint().is_none_or(|print| known.contains(&print))
    }

    /// Unlocks the identities in it. None: the passphrase is wrong.
    pub fn unlock(&self, passphrase: &str) -> Result<Option<Vec<Self>>> {
        let passphrase = SecretString::from(passphrase.to_owned());

        match &self.key {
            Key::Ssh(key) => {
                let age::ssh::Identity::Encrypted(locked) = key.as_ref() else {
                    return Ok(Some(vec![self.clone()]));
                };
                let opened = locked.decrypt(passphrase).ok().map(age::ssh::Identity::from);
                Ok(opened.map(|key| vec![Self { key: Key::Ssh(Box::new(key)), path: self.path.clone() }]))
            }
            Key::Locked(bytes) => {
                let damaged = |what: &str| Fault::unseal(format!("{}: {what}", self.path.display()));
                let armored = BufReader::new(age::armor::ArmoredReader::new(bytes.as_slice()));
                let decryptor = age::Decryptor::new_buffered(armored)
                    .map_err(|_| damaged("is not a file that age made"))?;
                if !decryptor.is_scrypt() {
                    return Err(damaged("is encrypted to a key, not with a passphrase").into());
                }
                let mut identity = age::scrypt::Identity::new(passphrase);
                identity.set_max_work_factor(WORK_FACTOR_MAX);
                let mut clear = match decryptor.decrypt(std::iter::once(&identity as _)) {
                    Ok(clear) => clear,
                    Err(age::DecryptError::ExcessiveWork { .. }) => {
                        return Err(damaged("would take too long to unlock").into());
                    }
                    Err(_) => return Ok(None),
                };
                let mut text = Zeroizing::new(Vec::new());
                clear
                    .by_ref()
                    .take(FILE_MAX_BYTES)
                    .read_to_end(&mut text)
                    .map_err(|_| damaged("is damaged"))?;
                let found =
                    Self::of_bytes_of_file(&text).map_err(|e| at(&self.path.display().to_string(), &e))?;
                Ok(Some(found.into_iter().map(|one| Self { path: self.path.clone(), ..one }).collect()))
            }
            _ => Ok(Some(vec![self.clone()])),
        }
    }

    /// None: the payload is sealed to others, or this one is still locked.
    pub(super) fn open(&self, header: &[u8]) -> Result<Option<HeldFileKey>> {
        match &self.key {
            Key::X25519(key) => seal::try_open(header, key),
            Key::Ssh(key) => seal::try_open(header, key.as_ref()),
            Key::Held(key) => seal::try_open(header, key),
            Key::Locked(_) => Ok(None),
            Key::Plugin(key) => {
                let (key, header) = (key.clone(), header.to_vec());
                seal::within(PLUGIN_LIMIT, move || {
                    let (name, all) = (key.plugin(), [key.clone()]);
                    let plugin = age::plugin::IdentityPluginV1::new(name, &all, age::NoCallbacks);
                    seal::try_open(&header, &plugin.map_err(|_| no_plugin(FaultKind::Unseal, name))?)
                })?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::recipient::derive;
    use super::*;

    /// Checked with `age-keygen -y` by those who wrote them down.
    #[test]
    fn a_passphrase_becomes_the_key_that_others_derive_from_it() {
        let salt = b"proxsave/age-passphrase/v2:00112233445566778899aabbccddeeff";
        let derived = derive("Correct-Horse-42!", salt, (15, 8, 1)).unwrap();
        let identity = Identity::of_bytes(&derived).unwrap();
        assert_eq!(
            identity.recipient().unwrap().to_string(),
            "age1c92l66gk6neh8nhxnjah0gf55rjas0pljknfszyqmdr75vfpwgjsl78n4g"
        );
    }

    #[test]
    fn a_line_that_is_no_identity_is_told_and_not_repeated() {
        let error = Identity::of_bytes_of_file(b"# key\nhunter2\n").err().unwrap();
        assert_eq!(format!("{error:#}"), "line 2 is not an identity");
        let public = Identity::generate().recipient().unwrap().to_string();
        let error = Identity::of_bytes_of_file(public.as_bytes()).err().unwrap();
        assert!(error.downcast_ref::<Fault>().unwrap().hint.as_ref().unwrap().contains("public key"));
    }
}
