//! Keys of a host: who can open its snapshots, new pairs, and the proof that the offline half still works.

use std::path::Path;

use anyhow::Result;

use crate::archive::recipient::{self, Recipient};
use crate::archive::seal::Seal;
use crate::config::Config;
use crate::model::report::{Fault, FaultKind};
use crate::sys::files;
use crate::sys::host::Host;

/// Of a file of recipients.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// The recipients in force, each once; none when sealing is off.
/// Errors: `Usage` with file and line for what is none, and when sealing is on without one.
pub fn recipients(host: &Host, config: &Config) -> Result<Vec<Recipient>> {
    let backup = &config.backup;
    let wanted = backup.seal.unwrap_or(!backup.recipient.is_empty() || !backup.recipient_file.is_empty());
    if !wanted {
        return Ok(Vec::new());
    }
    let place = |key: &str, value: &str| format!("{}: backup 'main': {key}", config.place(key, value));
    let mut all: Vec<Recipient> = Vec::new();
    for text in &backup.recipient {
        let parsed = Recipient::parse(text);
        all.push(parsed.map_err(|error| recipient::at(&place("recipient", text), &error))?);
    }
    for path in &backup.recipient_file {
        let named = place("recipient-file", path);
        let fault = |what: String| {
            Fault::new(FaultKind::Usage, format!("{named}: {what}"))
                .hint("it is a file of recipients, one a line, as `age -R` takes it")
        };
        if !Path::new(path).is_absolute() {
            return Err(fault("must be absolute".into()).into());
        }
        let bytes = files::read_small(host.root(), path, FILE_MAX_BYTES)
            .map_err(|error| fault(format!("cannot read {path}: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| fault(format!("{path}: is no text")))?;
        all.extend(Recipient::parse_file(path, &text)?);
    }
    let mut seen = Vec::new();
    all.retain(|one| {
        let print = one.fingerprint();
        let fresh = !seen.contains(&print);
        seen.push(print);
        fresh
    });
    if all.is_empty() {
        let fault = Fault::new(FaultKind::Usage, "sealing is on, but there is no recipient");
        return Err(fault
            .hint("`pbx-config key setup` leads through it; `pbx-config key add RECIPIENT` takes one that you have")
            .into());
    }
    Ok(all)
}

/// The seal of a run. None: snapshots are not sealed.
pub fn seal(host: &Host, config: &Config) -> Result<Option<Seal>> {
    let recipients = recipients(host, config)?;
    if recipients.is_empty() {
        return Ok(None);
    }
    Seal::new(&recipients, config.backup.readback_key).map(Some)
}
