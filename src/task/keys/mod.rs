//! Keys of a host: who can open its snapshots, and new ones. The private halves pass through and are never kept.

pub mod key_check;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use zeroize::Zeroizing;

use crate::archive::identity::Identity;
use crate::archive::recipient::{self, Derivation, Recipient};
use crate::archive::seal::Seal;
use crate::archive::sign::Signer;
use crate::archive::writer::Protection;
use crate::catalog::items::system::SSH_HOST_KEY;
use crate::config::{self, Config};
use crate::model::problem::{Fault, Problem};
use crate::plan::passphrase;
use crate::sys::fs::files;
use crate::sys::host::{CONFIG_DIR, Host};
use crate::sys::process::forked;

/// The size limit of a file of recipients.
const FILE_MAX_BYTES: u64 = 4 << 20;
const RECIPIENT: &str = "recipient";
const RECIPIENT_FILE: &str = "recipient-file";
/// The time limit to read a key file: a file that a run needs before it starts may lie on a share that hangs.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// The size limit of any private SSH key.
const KEY_MAX_BYTES: u64 = 64 * 1024;
const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

/// The recipients in force, each once; none when sealing is off.
/// Errors: `Usage` with file and line for what is none, and when sealing is on without one.
pub fn recipients(host: &Host, config: &Config) -> Result<Vec<Recipient>> {
    let backup = &config.backup;
    let wanted = backup.seal.unwrap_or(!backup.recipient.is_empty() || !backup.recipient_file.is_empty());
    if !wanted {
        return Ok(Vec::new());
    }

    let all = named(host, config)?;
    if all.is_empty() {
        let empty = backup.recipient_file.iter().map(|path| format!("{path} has none"));
        let empty = empty.collect::<Vec<_>>().join(", ");
        let what = "encryption is on, but there is not a recipient";
        let what = if empty.is_empty() { what.to_owned() } else { format!("{what}: {empty}") };
        let fault = Fault::usage(what);
        return Err(fault
            .hint("`pbx-config key setup` sets it up; `pbx-config key add RECIPIENT` adds one that you have")
            .into());
    }
    Ok(all)
}

/// Those that the configuration names, whether they are in force or not.
fn named(host: &Host, config: &Config) -> Result<Vec<Recipient>> {
    let backup = &config.backup;
    let place = |key: &str, value: &str| format!("{}: backup 'main': {key}", config.place(key, value));
    let mut all: Vec<Recipient> = Vec::new();
    for text in &backup.recipient {
        let parsed = Recipient::parse(text);
        all.push(parsed.map_err(|error| recipient::at(&place(RECIPIENT, text), &error))?);
    }

    for path in &backup.recipient_file {
        let named = place(RECIPIENT_FILE, path);
        let fault = |what: String| {
            Fault::usage(format!("{named}: {what}"))
                .hint("use a file of recipients, one per line, as for `age -R`")
        };
        if !Path::new(path).is_absolute() {
            return Err(fault("must be absolute".into()).into());
        }
        let bytes = forked::read_small(READ_LIMIT, host.root(), path, FILE_MAX_BYTES)
            .map_err(|error| fault(format!("cannot read {path}: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| fault(format!("{path}: is not text")))?;
        all.extend(Recipient::parse_file(path, &text)?);
    }

    let mut seen = Vec::new();
    all.retain(|one| {
        let print = one.fingerprint();
        let fresh = !seen.contains(&print);
        seen.push(print);
        fresh
    });
    Ok(all)
}

/// The seal and the signature of a run. A host without the key that signs is silently not signed; one whose key
/// cannot be used is told.
pub fn protection(
    host: &Host,
    recipients: &[Recipient],
    config: &Config,
    problems: &mut Vec<Problem>,
) -> Result<Protection> {
    let has_recipients = !recipients.is_empty();
    let seal = has_recipients.then(|| seal(host, recipients, config.backup.readback_key)).transpose()?;
    let signer = config.backup.sign.then(|| signer(host, problems)).flatten();
    Ok(Protection { seal, signer })
}

/// A seal for these recipients. Errors: a plugin that the configuration of a system that is only mounted here names; it
/// would run on this machine.
pub fn seal(host: &Host, recipients: &[Recipient], read_back: bool) -> Result<Seal> {
    let plugin = recipients.iter().find(|one| one.is_plugin() && !host.exec.is_of_host());
    if let Some(plugin) = plugin {
        let message = format!("{plugin}: its plugin does not run for a system that is only mounted here");
        let hint =
            "with a recipient that needs no plugin in its configuration, or `seal no`, a backup can be made";
        return Err(Fault::failed(message).hint(hint).into());
    }
    Seal::new(recipients, read_back)
}

/// Returns the fingerprint of the key that signs the snapshots of this host. None: it has no such key.
pub fn own_signer(host: &Host) -> Option<String> {
    signer(host, &mut Vec::new()).map(|signer| signer.fingerprint())
}

fn signer(host: &Host, problems: &mut Vec<Problem>) -> Option<Signer> {
    let read = forked::read_small(READ_LIMIT, host.root(), SSH_HOST_KEY, KEY_MAX_BYTES).map(Zeroizing::new);
    let parsed = match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.into()),
        Ok(bytes) => Signer::parse(&bytes),
    };
    let cannot = |error: &anyhow::Error| {
        Problem::warning(format!("the snapshot is not signed: {SSH_HOST_KEY}: {error:#}"))
            .hint("`ssh-keygen -A` creates missing keys; `sign no` in `backup: main` turns signing off")
    };
    parsed.inspect_err(|error| problems.push(cannot(error))).ok()
}

/// A new pair, in the form of age-keygen's files. A secret: for the one place that the person named.
pub fn identity_file(host: &Host, identity: &Identity) -> Result<Zeroizing<String>> {
    let secret = identity.to_text().context("a key that can be written")?;
    let recipient = identity.recipient()?;
    let (node, made) = (&host.facts.node, host.now.strftime("%Y-%m-%dT%H:%M:%SZ"));
    Ok(Zeroizing::new(format!(
        "# opens the encrypted snapshots of {node}\n# created: {made}\n# public key: {recipient}\n{}\n",
        *secret
    )))
}

/// Writes an identity where the person said, never over anything, never where the host's snapshots are made of.
pub fn write_identity(host: &Host, path: &Path, text: &str) -> Result<()> {
    let absolute = std::path::absolute(path)?;
    let real = absolute.parent().and_then(|above| fs::canonicalize(above).ok());
    let real = real.unwrap_or_else(|| absolute.clone());
    let ours = [host.path(CONFIG_DIR), host.state_path()];
    if ours.iter().any(|dir| fs::canonicalize(dir).is_ok_and(|dir| real.starts_with(dir))) {
        let message = format!("{}: the key would be on the same disk as what it opens", path.display());
        return Err(Fault::usage(message)
            .hint("use a place outside of this host: a USB stick, or a password manager without --output")
            .into());
    }

    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&absolute)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&absolute);
        }
        written?;
        files::sync_dir(absolute.parent().unwrap_or(Path::new("/")))
    };

    write().with_context(|| {
        let fault = Fault::failed(format!("cannot write {}", path.display()));
        fault.hint("use a new file in an existing directory")
    })
}

/// Errors: `Usage` when a passphrase is too weak, with what would do.
pub fn check_passphrase(host: &Host, passphrase: &str) -> Result<()> {
    let mut names = vec![host.facts.node.as_str()];
    names.extend(host.facts.cluster.as_ref().map(|cluster| cluster.name.as_str()));
    match passphrase::weakness(passphrase, &names) {
        Some(weakness) => Err(Fault::usage(format!("this passphrase {weakness}")).into()),
        None => Ok(()),
    }
}

/// The public half of a pair that a passphrase makes; the private one is made again from it whenever it is needed.
/// Errors: as `check_passphrase`.
pub fn of_passphrase(host: &Host, passphrase: &str) -> Result<Recipient> {
    check_passphrase(host, passphrase)?;
    let derivation = Derivation::generate()?;
    let recipient = Identity::of_passphrase(passphrase, &derivation)?.recipient()?;
    Ok(recipient.derived(derivation))
}

/// The result of adding a recipient.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Added {
    pub recipient: String,
    pub fingerprint: String,
    pub file: PathBuf,
    /// False: it was there.
    pub new: bool,
}

/// Writes recipients into the node's configuration; every other byte of it stays.
/// Errors: `Usage` where the section is the cluster's: a node's own would replace all of it.
pub fn add(host: &Host, config: &Config, recipients: &[Recipient]) -> Result<Vec<Added>> {
    let known: Vec<String> = named(host, config)?.iter().map(Recipient::fingerprint).collect();
    let path = host.path(CONFIG_DIR).join(config::FILE);
    let name = path.display().to_string();
    if let Some(section) = config.main().filter(|section| *section.file != *name) {
        let lines: Vec<String> = recipients.iter().map(|one| format!("recipient {one}")).collect();
        let what = format!("{}: contains `backup: main` for all nodes", section.file);
        return Err(Fault::usage(what).hint(format!("add it there: {}", lines.join("; "))).into());
    }

    let file = format!("{CONFIG_DIR}/{}", config::FILE);
    let (mut text, mode) = match host.metadata(&file) {
        Ok(meta) => {
            let bytes = files::read_small(host.root(), &file, FILE_MAX_BYTES);
            let text = String::from_utf8(bytes.with_context(|| format!("cannot read {name}"))?);
            (text.with_context(|| format!("{name}: is not UTF-8"))?, meta.mode() & 0o777)
        }
        Err(_) => (String::new(), PUBLIC),
    };
    let before = text.clone();
    let mut done = Vec::new();
    for one in recipients {
        let fingerprint = one.fingerprint();
        let new =
            !known.contains(&fingerprint) && done.iter().all(|done: &Added| done.fingerprint != fingerprint);
        if new {
            text = config::edit::with_line(&name, &text, RECIPIENT, &one.to_string())?;
        }
        done.push(Added { recipient: one.to_string(), fingerprint, file: path.clone(), new });
    }

    if text != before {
        host.make_config_dir()?;
        host.replace(&file, mode, text.as_bytes())?;
    }
    Ok(done)
}
