//! Recipients, the public halves of sealing: age's own, SSH's and those of plugins, as they stand in a
//! configuration, and how a passphrase becomes one. Private halves are `identity`'s.

use std::fmt;

use age::ssh::ParseRecipientKeyError as SshError;
use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::model::problem::{Fault, FaultKind};
use crate::sys::process::locked_memory::random;

/// More keys than anyone keeps apart; the manifest must have room for their fingerprints.
pub const RECIPIENTS_MAX: usize = 64;
const WHAT_IS_ONE: &str =
    "a recipient begins with age1, ssh-ed25519 or ssh-rsa; `pbx-config key generate` makes a pair";
const NEVER_SECRET: &str = "it opens the encrypted snapshots and must not be kept here: remove it, and if others may \
     have read it, create a new one. `pbx-config key from-identity FILE` prints its public key, the recipient";

/// A key that can open what is encrypted.
#[derive(Clone)]
pub struct Recipient {
    key: Key,
    /// The derivation, when a passphrase is the private half.
    pub derivation: Option<Derivation>,
}

#[derive(Clone)]
enum Key {
    X25519(age::x25519::Recipient),
    Tag(age::tag::Recipient),
    TagPq(Box<age::tagpq::Recipient>),
    Ssh(age::ssh::Recipient),
    Plugin(age::plugin::Recipient),
}

impl Recipient {
    /// True for a word that begins as one does, whether it is one or a secret in its place.
    pub fn looks_like(word: &str) -> bool {
        let kinds = ["age1", "ssh-", "ecdsa-", "sk-"];
        kinds.iter().any(|kind| word.trim_start().starts_with(kind)) || is_secret(word)
    }

    /// `RECIPIENT`, `RECIPIENT $scrypt$…` or an SSH public key with whatever comment.
    /// Errors: `Usage`; what is no recipient is never repeated, it may be a secret.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if is_secret(text) {
            return Err(refused("is a secret key, not a recipient").hint(NEVER_SECRET).into());
        }
        if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-") {
            return Ok(Self { key: Key::Ssh(ssh(text)?), derivation: None });
        }

        let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let rest = rest.trim();
        if !word.starts_with("age1") {
            return Err(refused("is not a recipient").hint(WHAT_IS_ONE).into());
        }

        let derivation = match rest {
            "" => None,
            rest if rest.starts_with('#') => None,
            rest => Some(Derivation::parse(rest)?),
        };
        let parsed = (word.parse().map(Key::X25519))
            .or_else(|_| word.parse().map(Key::Tag))
            .or_else(|_| word.parse().map(|key| Key::TagPq(Box::new(key))))
            .or_else(|_| word.parse().map(Key::Plugin));
        let key = parsed.map_err(|_: &str| {
            refused("is a mistyped recipient: its checksum is wrong").hint("copy all of it again")
        })?;
        if derivation.is_some() && !matches!(key, Key::X25519(_)) {
            return Err(refused("a passphrase cannot make a recipient of this type")
                .hint(WHAT_IS_ONE)
                .into());
        }
        Ok(Self { key, derivation })
    }

    /// The same, whose private half a passphrase makes.
    #[must_use]
    pub fn derived(self, derivation: Derivation) -> Self {
        Self { derivation: Some(derivation), ..self }
    }

    /// The recipients of a file, one a line; `#` begins a comment. `name` is for errors.
    pub fn parse_file(name: &str, text: &str) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            all.push(Self::parse(line).map_err(|error| at(&format!("{name}:{}", n + 1), &error))?);
        }
        Ok(all)
    }

    /// Returns the fingerprint that `key show` and the manifest show.
    pub fn fingerprint(&self) -> String {
        match &self.key {
            Key::Ssh(age::ssh::Recipient::SshRsa(blob, _) | age::ssh::Recipient::SshEd25519(blob, _)) => {
                fingerprint(blob)
            }
            other => fingerprint(other.to_string().as_bytes()),
        }
    }

    /// Names the kind of key for people.
    pub fn kind(&self) -> String {
        match &self.key {
            Key::X25519(_) if self.derivation.is_some() => "passphrase".to_owned(),
            Key::X25519(_) => "age".to_owned(),
            Key::Tag(_) => "age, hardware".to_owned(),
            Key::TagPq(_) => "age, hardware, post-quantum".to_owned(),
            Key::Ssh(key) => key.to_string().split(' ').next().unwrap_or_default().to_owned(),
            Key::Plugin(key) => format!("plugin {}", key.plugin()),
        }
    }

    pub fn is_plugin(&self) -> bool {
        matches!(self.key, Key::Plugin(_))
    }

    /// Errors: the plugin is not installed.
    pub(super) fn for_age(&self) -> Result<Box<dyn age::Recipient + Send>> {
        Ok(match &self.key {
            Key::X25519(key) => Box::new(key.clone()),
            Key::Tag(key) => Box::new(key.clone()),
            Key::TagPq(key) => key.clone(),
            Key::Ssh(key) => Box::new(key.clone()),
            Key::Plugin(key) => {
                let (name, all) = (key.plugin(), [key.clone()]);
                let plugin = age::plugin::RecipientPluginV1::new(name, &all, &[], age::NoCallbacks);
                Box::new(plugin.map_err(|_| no_plugin(FaultKind::Failed, name))?)
            }
        })
    }
}

/// Writes it as it stands in a configuration.
impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)?;
        match &self.derivation {
            Some(derivation) => write!(f, " {derivation}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X25519(key) => key.fmt(f),
            Self::Tag(key) => key.fmt(f),
            Self::TagPq(key) => key.fmt(f),
            Self::Ssh(key) => key.fmt(f),
            Self::Plugin(key) => key.fmt(f),
        }
    }
}

impl From<age::x25519::Recipient> for Recipient {
    fn from(key: age::x25519::Recipient) -> Self {
        Self { key: Key::X25519(key), derivation: None }
    }
}

impl From<age::ssh::Recipient> for Recipient {
    fn from(key: age::ssh::Recipient) -> Self {
        Self { key: Key::Ssh(key), derivation: None }
    }
}

/// `SHA256:` and base64 without padding, as ssh-keygen prints it.
pub fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", BASE64.encode(Sha256::digest(blob)))
}

/// True for what opens sealed payloads, in any case and with anything before it.
pub fn is_secret(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    ["AGE-SECRET-KEY-", "AGE-PLUGIN-", "PRIVATE KEY"].iter().any(|mark| upper.contains(mark))
}

fn refused(what: &str) -> Fault {
    Fault::usage(what)
}

pub(super) fn no_plugin(kind: FaultKind, name: &str) -> Fault {
    Fault::new(kind, format!("age-plugin-{name}: is not installed"))
        .hint("install the plugin where root finds it, for example in /usr/local/bin")
}

/// The same error with its place before it.
pub fn at(place: &str, error: &anyhow::Error) -> anyhow::Error {
    let fault = error.downcast_ref::<Fault>().cloned();
    fault.unwrap_or_else(|| refused(&format!("{error:#}"))).at(place).into()
}

fn ssh(text: &str) -> Result<age::ssh::Recipient> {
    text.parse().map_err(|error| {
        let what = match error {
            SshError::RsaModulusTooSmall => "is an RSA key of less than 2048 bits".to_owned(),
            SshError::RsaModulusTooLarge => "is an RSA key of more than 4096 bits".to_owned(),
            _ => {
                let kind = text.split(' ').next().unwrap_or_default();
                match kind {
                    "ssh-ed25519" | "ssh-rsa" => format!("is a damaged {kind} key"),
                    _ => "is an SSH key that age cannot encrypt to".to_owned(),
                }
            }
        };
        refused(&what).hint("ssh-ed25519 works, and ssh-rsa of 2048 to 4096 bits").into()
    })
}

/// The way from a passphrase to a key: scrypt, with a salt of this installation.
/// Text form: PHC's, `$scrypt$ln=18,r=8,p=1$SALT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The binary logarithm of N.
    ln: u8,
    r: u32,
    p: u32,
    salt: Vec<u8>,
}

impl Derivation {
    /// A quarter of a GiB and about a second: what age itself takes for passphrases.
    const LN: u8 = 18;
    const SALT_BYTES: usize = 16;
    /// A manifest is anybody's: it must not make us take all memory.
    const MEMORY_MAX_BYTES: u64 = 1 << 30;

    pub fn generate() -> Result<Self> {
        let mut salt = vec![0; Self::SALT_BYTES];
        random(&mut salt)?;
        Ok(Self { ln: Self::LN, r: 8, p: 1, salt })
    }

    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('$').collect();
        let ["", "scrypt", numbers, salt] = parts.as_slice() else {
            let hint = "use a recipient alone, or with the $scrypt$… that `pbx-config key generate --passphrase` \
                        printed beside it";
            return Err(refused("has text after the recipient").hint(hint).into());
        };
        let number = |key: &str| {
            let found = numbers.split(',').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0)
        };
        let (ln, r, p) = (number("ln"), number("r"), number("p"));
        let memory = 128_u64.saturating_mul(1_u64.checked_shl(ln).unwrap_or(u64::MAX));
        let memory = memory.saturating_mul(u64::from(r));
        ensure!(
            ln > 0 && ln < 64 && r > 0 && (1..=4).contains(&p) && memory <= Self::MEMORY_MAX_BYTES,
            refused("its scrypt parameters are not valid")
        );

        let salt = BASE64.decode(salt).ok().filter(|salt| (8..=64).contains(&salt.len()));
        match (u8::try_from(ln), salt) {
            (Ok(ln), Some(salt)) => Ok(Self { ln, r, p, salt }),
            _ => Err(refused("its salt is damaged").hint("copy all of it again").into()),
        }
    }

    /// The 32 bytes of an X25519 key. Takes a second and the memory that the parameters say.
    pub(super) fn derive(&self, passphrase: &str) -> Result<Zeroizing<[u8; 32]>> {
        derive(passphrase, &self.salt, (self.ln, self.r, self.p))
    }
}

/// scrypt over any salt; `(ln, r, p)`.
pub(super) fn derive(passphrase: &str, salt: &[u8], cost: (u8, u32, u32)) -> Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    let params = scrypt::Params::new(cost.0, cost.1, cost.2, key.len())
        .map_err(|_| refused("its scrypt parameters are not valid"))?;
    scrypt::scrypt(passphrase.as_bytes(), salt, &params, &mut *key).map_err(anyhow::Error::msg)?;
    Ok(key)
}

impl fmt::Display for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ln, r, p, salt } = self;
        write!(f, "$scrypt$ln={ln},r={r},p={p}${}", BASE64.encode(salt))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const AGE: &str = "age1c92l66gk6neh8nhxnjah0gf55rjas0pljknfszyqmdr75vfpwgjsl78n4g";
    const SECRET: &str = "AGE-SECRET-KEY-18REYAGA0D7TXV0U0HWJY9R9CALR394KNHEG628R3RWLEEJAJTDSQKV20QQ";

    fn told(text: &str) -> String {
        Recipient::parse(text).map_or_else(|e| format!("{e:#}"), |r| format!("{}: {r}", r.kind()))
    }

    #[test]
    fn each_kind_is_known_and_printed_as_it_came() {
        let salted = format!("{AGE} $scrypt$ln=18,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(told(AGE), format!("age: {AGE}"));
        assert_eq!(told(&salted), format!("passphrase: {salted}"));
        let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
        assert_eq!(told(&format!("{ssh} someone@desk")), format!("ssh-ed25519: {ssh}"));
        let plugin = "age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt";
        assert_eq!(told(plugin), format!("plugin yubikey: {plugin}"));
    }

    #[test]
    fn a_secret_key_is_refused_and_not_repeated() {
        for text in [SECRET.to_owned(), SECRET.to_lowercase(), format!("recipient {SECRET}")] {
            let error = Recipient::parse(&text).err().unwrap();
            let fault = error.downcast_ref::<Fault>().unwrap();
            assert_eq!(fault.kind, FaultKind::Usage);
            let all = format!("{error:#} {}", fault.hint.as_deref().unwrap());
            assert!(all.starts_with("is a secret key") && !all.to_uppercase().contains("KEY-18REY"), "{all}");
        }
    }

    #[test]
    fn junk_is_told_by_its_line_and_not_repeated() {
        let error = Recipient::parse_file("r.txt", &format!("# mine\n{AGE}\n\nhunter2\n")).err().unwrap();
        assert_eq!(format!("{error:#}"), "r.txt:4: is not a recipient");
        let error = Recipient::parse_file("r.txt", &AGE.replace("c92", "c93")).err().unwrap();
        assert_eq!(format!("{error:#}"), "r.txt:1: is a mistyped recipient: its checksum is wrong");
        assert_eq!(told("ecdsa-sha2-nistp256 AAAA"), "is an SSH key that age cannot encrypt to");
        assert_eq!(told("ssh-ed25519 AAAA"), "is a damaged ssh-ed25519 key");
    }

    #[test]
    fn a_derivation_that_would_take_all_memory_is_refused() {
        for cost in
            ["ln=30,r=8,p=1", "ln=18,r=4000000000,p=1", "ln=0,r=8,p=1", "ln=18,r=8,p=9", "ln=99,r=1,p=1", ""]
        {
            let text = format!("$scrypt${cost}$AAAAAAAAAAAAAAAAAAAAAA");
            assert!(Derivation::parse(&text).is_err(), "{text}");
        }
        let fresh = Derivation::generate().unwrap();
        assert_eq!(Derivation::parse(&fresh.to_string()).unwrap(), fresh);
    }
}
