//! All identities that may open sealed payloads wherever snapshots are read, and what a person is asked for when none
//! does. Not here: one of them (`identity`).

use std::fmt;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use zeroize::Zeroizing;

use super::identity::Identity;
use super::recipient::Derivation;
use super::seal::{Clear, HeldFileKey, Opening};
use crate::model::problem::Fault;
use crate::model::snapshot::Sealed;
use crate::sys::process::signals::check_stopped;

/// A payload that names more derivations than one installation ever had is made to cost time.
const DERIVATIONS_MAX: usize = 8;
/// The keys of a person, in the order in which OpenSSH looks for them.
const SSH_KEYS: [&str; 2] = [".ssh/id_ed25519", ".ssh/id_rsa"];

/// The secret that a person is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// The key of the encrypted payload: an identity, or a passphrase when it was encrypted to one.
    Key { of: &'a str, passphrase: bool },
    /// The passphrase of this file of keys.
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
    opened: Mutex<Vec<(Vec<u8>, HeldFileKey)>>,
    ask: Option<Box<Ask>>,
    /// The folder that has a person's own SSH keys in `.ssh`.
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

    /// Makes the keys of one payload from the key that encrypted it.
    pub fn of_run(held: HeldFileKey) -> Self {
        Self(Arc::new(Inner { identities: Mutex::new(vec![Identity::of_held(held)]), ..Inner::default() }))
    }

    /// Nothing was given: without asking a person, nothing will open.
    pub fn is_empty(&self) -> bool {
        lock(&self.0.identities).is_empty()
    }

    /// The file key of a sealed payload, without asking anybody. None: what is there does not open it.
    /// Errors: the header is damaged, a plugin refuses.
    pub fn find(&self, header: &[u8], sealed: Option<&Sealed>) -> Result<Option<HeldFileKey>> {
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
    pub fn find_or_ask(&self, header: &[u8], sealed: Option<&Sealed>, of: &str) -> Result<HeldFileKey> {
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
                None if derivations.is_empty() => {
                    "this is not an identity; an identity begins with AGE-SECRET-KEY-1"
                }
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

    fn keep(&self, header: &[u8], held: HeldFileKey) -> HeldFileKey {
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
            let what = format!(
                "{}: is protected by a passphrase, and there is no terminal to ask for it",
                locked.path.display()
            );
            let fault = Fault::unseal(what);
            fault.hint("run it on a terminal, or use a key without a passphrase").into()
        } else if self.is_empty() {
            let fault = Fault::unseal(format!("{of}: is encrypted{to}"));
            let file = "name the key file with --identity FILE or PBX_IDENTITY_FILE";
            let hint = match sealed {
                Some(sealed) if !sealed.passphrases.is_empty() => {
                    format!("run it on a terminal to be asked for the passphrase; or {file}")
                }
                _ => file.to_owned(),
            };
            fault.hint(hint).into()
        } else {
            let fault = Fault::unseal(format!("{of}: none of the identities can open it"));
            fault
                .hint(format!(
                    "it is encrypted{to}; `pbx-config key from-identity FILE` prints the recipient of a key file"
                ))
                .into()
        }
    }

    /// Files of keys that a passphrase locks: those that may fit are unlocked, asking until it is right.
    fn unlock(&self, header: &[u8], sealed: Option<&Sealed>) -> Result<Option<HeldFileKey>> {
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
