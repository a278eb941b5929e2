//! The proof that somebody still has the key that opens the snapshots: a small canary is encrypted as a snapshot
//! would be, opened with the offline key, and the day is written down.

use std::io::{BufReader, Read, Write};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::keys::Keys;
use crate::archive::recipient::Recipient;
use crate::config::Config;
use crate::model::problem::{Fault, Problem};
use crate::sys::host::Host;
use crate::sys::json_file::JsonFile;
use crate::sys::process::locked_memory::random;
use crate::task::keys;

/// A key that nobody held in hand for so long may be lost.
pub const PROOF_MAX_DAYS: i64 = 90;
const FILE: &str = "key-proof.json";
const FILE_MAX_BYTES: u64 = 64 * 1024;
const CANARY_BYTES: usize = 64;
const HOURS_OF_A_DAY: i64 = 24;

/// The last time that the offline key opened something, and who could have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Proof {
    pub at: Timestamp,
    /// Fingerprints of the recipients to which the canary was sealed; one of them has the key.
    pub recipients: Vec<String>,
}

/// The last one on this host. None: never, or its record cannot be read.
pub fn proof(host: &Host) -> Option<Proof> {
    file(host).read().ok()?
}

fn file(host: &Host) -> JsonFile<'_, Proof> {
    JsonFile::new(host, FILE, FILE_MAX_BYTES)
}

/// Returns the problem that tells an admin to check the key. None: nothing is encrypted, or the key was proven not
/// long ago, with the recipients of today.
pub fn overdue(host: &Host, recipients: &[Recipient]) -> Option<Problem> {
    if recipients.is_empty() {
        return None;
    }

    let passphrases = recipients.iter().filter(|one| one.derivation.is_some()).count();
    let hint = match passphrases {
        0 => "check it with the offline key: `pbx-config key prove --identity FILE`",
        all if all == recipients.len() => "on a terminal: `pbx-config key prove` asks for the passphrase",
        _ => {
            "on a terminal `pbx-config key prove` asks for the passphrase; name the offline key with `--identity FILE`"
        }
    };
    let warning = |what: String| Problem::warning(what).hint(hint);
    let Some(proof) = proof(host) else {
        return Some(warning("the key that opens the snapshots was never checked to be there".into()));
    };
    let prints: Vec<String> = recipients.iter().map(Recipient::fingerprint).collect();
    if !proof.recipients.iter().any(|print| prints.contains(print)) {
        return Some(warning("the keys of the current recipients were never checked".into()));
    }

    let days = host.now.duration_since(proof.at).as_hours() / HOURS_OF_A_DAY;
    (days > PROOF_MAX_DAYS)
        .then(|| warning(format!("the key that opens the snapshots was last checked {days} days ago")))
}

/// Seals a canary to each recipient by itself, opens what the keys open, and records the day.
/// Errors: `Usage` when nothing is sealed here; `Unseal` when nothing opens it.
pub fn prove(host: &Host, config: &Config, keys: &Keys) -> Result<Proof> {
    let recipients = keys::recipients(host, config)?;
    if recipients.is_empty() {
        let fault = Fault::usage("this host does not encrypt its snapshots: there is nothing to check");
        return Err(fault.hint("`pbx-config key setup` sets it up").into());
    }

    open_canary(host, &recipients, keys)?;
    let mut opened = Vec::new();
    for one in &recipients {
        // Which of them it was: the others are not asked about, nor is a token touched again.
        if recipients.len() == 1 || !one.is_plugin() && opens_alone(host, one, keys)? {
            opened.push(one.fingerprint());
        }
    }

    if opened.is_empty() {
        opened.extend(recipients.iter().filter(|one| one.is_plugin()).map(Recipient::fingerprint));
    }
    let proof = Proof { at: host.now, recipients: opened };
    file(host).write_pretty(&proof)?;
    Ok(proof)
}

fn canary(
    host: &Host,
    recipients: &[Recipient],
) -> Result<(Vec<u8>, Vec<u8>, crate::model::snapshot::Sealed)> {
    let mut clear = vec![0; CANARY_BYTES];
    random(&mut clear)?;
    let seal = keys::seal(host, recipients, false)?;
    let described = seal.sealed.clone();
    let mut sealed = Vec::new();
    let mut stream = seal.begin(&mut sealed)?;
    stream.write_all(&clear)?;
    stream.finish()?;
    Ok((clear, sealed, described))
}

fn open_canary(host: &Host, recipients: &[Recipient], keys: &Keys) -> Result<()> {
    let (clear, sealed, described) = canary(host, recipients)?;
    let mut opened = Vec::new();
    let mut stream = keys.unseal(BufReader::new(sealed.as_slice()), Some(&described), "the canary")?;
    stream.by_ref().take(CANARY_BYTES as u64 + 1).read_to_end(&mut opened)?;
    ensure!(opened == clear, "the canary is not the same after decryption");
    Ok(())
}

fn opens_alone(host: &Host, recipient: &Recipient, keys: &Keys) -> Result<bool> {
    let (_, sealed, described) = canary(host, std::slice::from_ref(recipient))?;
    keys.opens(BufReader::new(sealed.as_slice()), Some(&described))
}
