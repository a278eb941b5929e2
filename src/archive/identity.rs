//! Identities, the private halves: files of age's and SSH's keys, locked ones too, plugins, passphrases, and what a
//! person is asked for. `Keys` is all of them, and opens sealed payloads wherever snapshots are read.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use age::secrecy::{ExposeSecret, SecretString};
use anyhow::{Context, Result, ensure};
use bech32::{Bech32, Hrp};
use zeroize::{Zeroize, Zeroizing};

use super::recipient::{Derivation, Recipient, at, no_plugin};
use super::seal::{self, Clear, Held, Opening};
use crate::model::report::{Fault, FaultKind};
use crate::model::snapshot::Sealed;
use crate::sys::lock::check_stopped;

/// Far more than any key takes.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// A payload that names more derivations than one installation ever had is made to cost time.
const DERIVATIONS_MAX: usize = 8;
/// Of a file of identities that is itself locked by a passphrase: 1 GiB and some seconds.
const WORK_FACTOR_MAX: u8 = 20;
/// A plugin may ask for a finger on a token.
const PLUGIN_LIMIT: Duration = Duration::from_secs(120);
/// In the order in which OpenSSH looks for them.
const SSH_KEYS: [&str; 2] = [".ssh/id_ed25519", ".ssh/id_rsa"];

/// What a person is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// What opens the sealed payload: an identity, or a passphrase when it has been sealed to one.
    Key { of: &'a str, passphrase: bool },
    /// What unlocks this file of keys.
    Unlock { file: &'a Path },
}

/// Asks a person. `wrong`: what was wrong with the answer before. None: nobody can be asked.
/// Errors: the person wants to leave.
pub type Ask = dyn Fn(Question, Option<&str>) -> Result<Option<Zeroizing<String>>> + Send + Sync;

/// All that may open sealed payloads. Copies share what they learn.
#[derive(Clone, Default)]
pub struct Keys(Arc<Inner>);

#[derive(Default)]
struct Inner {
    identities: Mutex<Vec<Identity>>,
    /// Files that are read when something sealed is met.
    later: Mutex<Vec<PathBuf>>,
    /// Payloads that were opened, by their headers: a token is not to be touched twice.
    opened: Mutex<Vec<(Vec<u8>, Held)>>,
    ask: Option<Box<Ask>>,
    /// Where a person's own SSH keys are.
    home: Option<PathBuf>,
}

/// A person's keys are no text.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", lock(&self.0.identities).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keys {
    /// `paths`: files of identities. `later`: the same, not looked at before something sealed is met. `home`: a
    /// folder whose SSH keys are tried on what is sealed to them. `ask`: when nothing else opens it.
    /// Errors: `Unseal` for a file that is none of identities, with its line.
    pub fn new(
        paths: &[PathBuf],
        later: Option<PathBuf>,
        home: Option<PathBuf>,
        ask: Option<Box<Ask>>,
    ) -> Result<Self> {
        let mut identities = Vec::new();
        for path in paths {
            identities.extend(Identity::of_file(path)?);
        }
        let (identities, later) = (Mutex::new(identities), Mutex::new(later.into_iter().collect()));
        Ok(Self(Arc::new(Inner { identities, later, opened: Mutex::default(), ask, home })))
    }

    /// Of one payload, by the key that sealed it.
    pub fn of_run(held: Held) -> Self {
        Self(Arc::new(Inner {
            identities: Mutex::new(vec![Identity { key: Key::Held(held), path: PathBuf::new() }]),
            ..Inner::default()
        }))
    }

    /// Nothing was given: without asking a person, nothing will open.
    pub fn is_empty(&self) -> bool {
        lock(&self.0.identities).is_empty()
    }

    /// The file key of a sealed payload, without asking anybody. None: what is there does not open it.
    /// Errors: the header is damaged, a plugin refuses.
    pub fn find(&self, header: &[u8], sealed: Option<&Sealed>) -> Result<Option<Held>> {
        if let Some((_, held)) = lock(&self.0.opened).iter().find(|(known, _)| known == header) {
            return Ok(Some(held.clone()));
        }
        for path in std::mem::take(&mut *lock(&self.0.later)) {
            lock(&self.0.identities).extend(Identity::of_file(&path)?);
        }
        self.take_own_ssh_keys(sealed);
        let mut refusal = None;
        for identity in lock(&self.0.identities).iter() {
            match identity.open(header) {
                Ok(Some(held)) => return Ok(Some(self.keep(header, held))),
                Ok(None) => {}
                // Another one may open it.
                Err(error) => refusal = Some(error),
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    /// The same, asking until it opens. Errors: `Unseal` when it does not and nobody can be asked.
    pub fn find_or_ask(&self, header: &[u8], sealed: Option<&Sealed>, of: &str) -> Result<Held> {
        if let Some(held) = self.find(header, sealed)? {
            return Ok(held);
        }
        if let Some(held) = self.unlock(header, sealed)? {
            return Ok(self.keep(header, held));
        }
        let derivations = derivations(sealed);
        let question = Question::Key { of, passphrase: !derivations.is_empty() };
        let mut wrong = None;
        loop {
            let Some(ask) = &self.0.ask else { return Err(self.none_opens(of, sealed)) };
            let Some(answer) = ask(question, wrong)? else { return Err(self.none_opens(of, sealed)) };
            let answer = answer.trim();
            wrong = Some(match Identity::of_line(answer) {
                Some(identity) => match identity.open(header)? {
                    Some(held) => {
                        lock(&self.0.identities).push(identity);
                        return Ok(self.keep(header, held));
                    }
                    None => "this key does not open it",
                },
                None if derivations.is_empty() => "this is no identity; one begins with AGE-SECRET-KEY-1",
                None => {
                    if let Some(identity) = by_passphrase(answer, &derivations, header)? {
                        let held = identity.open(header)?.context("opened just now")?;
                        lock(&self.0.identities).push(identity);
                        return Ok(self.keep(header, held));
                    }
                    "this passphrase does not open it"
                }
            });
        }
    }

    fn keep(&self, header: &[u8], held: Held) -> Held {
        lock(&self.0.opened).push((header.to_vec(), held.clone()));
        held
    }

    fn none_opens(&self, of: &str, sealed: Option<&Sealed>) -> anyhow::Error {
        let to = match sealed.map(|sealed| &sealed.fingerprints[..]) {
            Some([]) | None => String::new(),
            Some(all) => format!(" to {}", all.join(", ")),
        };
        let locked =
            lock(&self.0.identities).iter().find(|one| one.is_locked() && one.may_open(sealed)).cloned();
        if let Some(locked) = locked {
            let what =
                format!("{}: is locked by a passphrase, and nobody can be asked", locked.path.display());
            let fault = Fault::new(FaultKind::Unseal, what);
            fault.hint("run it on a terminal, or name a key that is not locked").into()
        } else if self.is_empty() {
            let fault = Fault::new(FaultKind::Unseal, format!("{of}: is sealed{to}"));
            fault
                .hint("name the file that holds the key with --identity FILE, or with PBX_IDENTITY_FILE")
                .into()
        } else {
            let fault = Fault::new(FaultKind::Unseal, format!("{of}: none of the identities opens it"));
            fault
                .hint(format!(
                    "it is sealed{to}; `pbx-config key from-identity FILE` tells what a file opens"
                ))
                .into()
        }
    }

    /// Files of keys that a passphrase locks: those that may fit are unlocked, asking until it is right.
    fn unlock(&self, header: &[u8], sealed: Option<&Sealed>) -> Result<Option<Held>> {
        let fits = |identity: &Identity| identity.is_locked() && identity.may_open(sealed);
        let locked: Vec<Identity> =
            lock(&self.0.identities).iter().filter(|one| fits(one)).cloned().collect();
        for identity in locked {
            let mut wrong = None;
            let opened = loop {
                let Some(ask) = &self.0.ask else { break None };
                let question = Question::Unlock { file: &identity.path };
                let Some(answer) = ask(question, wrong)? else { break None };
                match identity.unlock(&answer)? {
                    Some(opened) => break Some(opened),
                    None => wrong = Some("this passphrase does not unlock it"),
                }
            };
            let Some(opened) = opened else { continue };
            let mut found = None;
            for one in opened {
                found = found.or(one.open(header)?);
                lock(&self.0.identities).push(one);
            }
            // What it locked is known now.
            lock(&self.0.identities).retain(|one| !(one.is_locked() && one.path == identity.path));
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Only where the manifest says that it is sealed to them: nobody is asked to unlock a key for nothing.
    fn take_own_ssh_keys(&self, sealed: Option<&Sealed>) {
        let (Some(home), Some(sealed)) = (&self.0.home, sealed) else { return };
        for path in SSH_KEYS.iter().map(|key| home.join(key)) {
            let known = lock(&self.0.identities).iter().any(|one| one.path == path);
            // What cannot be read or is no key is none of the person's mistakes.
            let Ok(found) = Identity::of_file(&path) else { continue };
            let fits =
                |one: &Identity| one.fingerprint().is_some_and(|print| sealed.fingerprints.contains(&print));
            lock(&self.0.identities).extend(found.into_iter().filter(|one| !known && fits(one)));
        }
    }

    /// The clear stream of a sealed one that anybody made, as `age` does. `of` is for people.
    /// Errors: `Unseal` when nothing opens it, damage.
    pub fn unseal<R: BufRead>(&self, input: R, sealed: Option<&Sealed>, of: &str) -> Result<Clear<R>> {
        let opening = Opening::new(input)?;
        let held = self.find_or_ask(&opening.header, sealed, of)?;
        opening.open(&held)
    }
}

impl Keys {
    /// True when what is there opens a sealed stream, without asking anybody.
    pub fn opens(&self, input: impl BufRead, sealed: Option<&Sealed>) -> Result<bool> {
        Ok(self.find(&Opening::new(input)?.header, sealed)?.is_some())
    }
}

fn derivations(sealed: Option<&Sealed>) -> Vec<Derivation> {
    let texts = sealed.map(|sealed| &sealed.passphrases[..]).unwrap_or_default();
    texts.iter().filter_map(|text| Derivation::parse(text).ok()).take(DERIVATIONS_MAX).collect()
}

/// Each takes a second.
fn by_passphrase(passphrase: &str, with: &[Derivation], header: &[u8]) -> Result<Option<Identity>> {
    for derivation in with {
        check_stopped()?;
        let identity = Identity::of_passphrase(passphrase, derivation)?;
        if identity.open(header)?.is_some() {
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

/// One private key.
#[derive(Clone)]
pub struct Identity {
    key: Key,
    /// Where it came from; empty for what was typed.
    pub path: PathBuf,
}

#[derive(Clone)]
enum Key {
    X25519(age::x25519::Identity),
    Ssh(Box<age::ssh::Identity>),
    Plugin(age::plugin::Identity),
    /// A file of identities that a passphrase locks, as it is.
    Locked(Arc<Vec<u8>>),
    Held(Held),
}

impl Identity {
    pub fn generate() -> Self {
        Self { key: Key::X25519(age::x25519::Identity::generate()), path: PathBuf::new() }
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

    /// What a line says. None: it is no identity.
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
            Fault::new(FaultKind::Unseal, what).hint(
                "a file of identities has lines that begin with AGE-SECRET-KEY-1, or is a private SSH key",
            )
        };
        let mut bytes = Zeroizing::new(Vec::new());
        // Whatever the person names, a pipe of another program, too.
        let read = File::open(path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut bytes));
        read.map_err(|error| Fault::new(FaultKind::Unseal, format!("cannot read {place}: {error}")))?;
        let found = Self::of_bytes_of_file(&bytes).map_err(|error| at(&place, &error))?;
        ensure!(!found.is_empty(), fault(&format!("{place}: has no identity")));
        Ok(found.into_iter().map(|one| Self { path: path.to_owned(), ..one }).collect())
    }

    fn of_bytes_of_file(bytes: &[u8]) -> Result<Vec<Self>> {
        let bare = |key| vec![Self { key, path: PathBuf::new() }];
        if bytes.starts_with(b"age-encryption.org/")
            || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
        {
            return Ok(bare(Key::Locked(Arc::new(bytes.to_vec()))));
        }
        let fault = |what: String| Fault::new(FaultKind::Unseal, what);
        let text = std::str::from_utf8(bytes).map_err(|_| fault("is no file of identities".into()))?;
        if text.trim_start().starts_with("-----BEGIN ") {
            let key = age::ssh::Identity::from_buffer(text.trim_start().as_bytes(), None)
                .map_err(|_| fault("is no private SSH key that age can use".into()))?;
            if matches!(key, age::ssh::Identity::Unsupported(_)) {
                return Err(fault("is an SSH key of a kind that age cannot use".into())
                    .hint("ssh-ed25519 and ssh-rsa work; `ssh-keygen -p -f FILE` makes an old file a new one")
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
                let fault = fault(format!("line {} is no identity", n + 1));
                if Recipient::parse(line).is_ok() {
                    fault.hint(
                        "it is a recipient, the public half; the secret one begins with AGE-SECRET-KEY-1",
                    )
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
        let fault = |what: String| Fault::new(FaultKind::Usage, what);
        match &self.key {
            Key::X25519(key) => Ok(key.to_public().into()),
            Key::Ssh(key) => age::ssh::Recipient::try_from(key.as_ref().clone())
                .map(Into::into)
                .map_err(|_| fault("is an SSH key of a kind that age cannot seal to".into()).into()),
            Key::Plugin(key) => {
                let name = key.plugin();
                Err(fault(format!("only age-plugin-{name} knows its recipient"))
                    .hint("the file that it made has the recipient in a comment")
                    .into())
            }
            Key::Locked(_) | Key::Held(_) => Err(fault("is locked by a passphrase".into()).into()),
        }
    }

    fn fingerprint(&self) -> Option<String> {
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
    fn may_open(&self, sealed: Option<&Sealed>) -> bool {
        let known = sealed.map(|sealed| &sealed.fingerprints[..]).unwrap_or_default();
        known.is_empty() || self.fingerprint().is_none_or(|print| known.contains(&print))
    }

    /// What it locks. None: the passphrase is wrong.
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
                let damaged =
                    |what: &str| Fault::new(FaultKind::Unseal, format!("{}: {what}", self.path.display()));
                let armored = BufReader::new(age::armor::ArmoredReader::new(bytes.as_slice()));
                let decryptor =
                    age::Decryptor::new_buffered(armored).map_err(|_| damaged("is no file that age made"))?;
                if !decryptor.is_scrypt() {
                    return Err(damaged("is sealed to a key, not locked by a passphrase").into());
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
    fn open(&self, header: &[u8]) -> Result<Option<Held>> {
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
        assert_eq!(format!("{error:#}"), "line 2 is no identity");
        let public = Identity::generate().recipient().unwrap().to_string();
        let error = Identity::of_bytes_of_file(public.as_bytes()).err().unwrap();
        assert!(error.downcast_ref::<Fault>().unwrap().hint.as_ref().unwrap().contains("public half"));
    }
}
