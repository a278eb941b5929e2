//! What tells this installation from another of the same name where the machine id does not: clones and images
//! have none before their first boot, and share the SSH keys of their template.

use serde::{Deserialize, Serialize};

use crate::plan::prune::Ours;
use crate::sys::hex;
use crate::sys::host::Host;
use crate::sys::json_file::JsonFile;
use crate::sys::process::locked_memory::random;

const FILE: &str = "installation.json";
const FILE_MAX_BYTES: u64 = 4096;

/// A random number, made by the first backup.
#[derive(Serialize, Deserialize)]
struct Installation {
    /// 32 hex digits.
    id: String,
}

fn file(host: &Host) -> JsonFile<'_, Installation> {
    JsonFile::new(host, FILE, FILE_MAX_BYTES)
}

/// Returns the id of this installation; None when none was made.
pub fn id(host: &Host) -> Option<String> {
    file(host).read().ok().flatten().map(|installation| installation.id)
}

/// Makes the id when the host has no other. None: it has a machine id, or its state directory cannot be written; then
/// nothing can be told to be its own, and retention removes nothing.
pub fn ensure(host: &Host) -> Option<String> {
    if host.facts.machine_id.is_some() {
        return None;
    }
    if let Some(known) = id(host) {
        return Some(known);
    }

    let mut bytes = [0; 16];
    random(&mut bytes).ok()?;
    let installation = Installation { id: hex(&bytes) };
    file(host).write(&installation).ok().map(|()| installation.id)
}

/// Tells the snapshots of this host from those of another machine of its name.
pub fn ours<'a>(host: &'a Host, installation: Option<&'a str>, adopted: &'a [String]) -> Ours<'a> {
    Ours { machine_id: host.facts.machine_id.as_deref(), installation, adopted }
}
