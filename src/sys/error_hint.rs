//! Hints of errors: their own, and what helps against the system's refusals: no right, no room, a share that went away.

use std::io;

use super::fs::files;
use crate::model::problem::Fault;

/// Returns the hint that the error says itself.
pub fn own(error: &anyhow::Error) -> Option<String> {
    error.downcast_ref::<Fault>().and_then(|fault| fault.hint.clone())
}

/// None: the error is none of the system's, or nothing helps that its words do not say.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>())?;

    match cause.kind() {
        io::ErrorKind::PermissionDenied if files::is_root() => Some(
            "even root is not allowed to: see `lsattr -d` for immutable files and `findmnt -T` for the mount",
        ),
        io::ErrorKind::PermissionDenied => Some("run it as root"),
        io::ErrorKind::StorageFull => {
            Some("free some space there (see `df` and `df -i`), or use another place")
        }
        io::ErrorKind::QuotaExceeded => Some("free some space there, or use another place"),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("see `dmesg` for the cause and mount it writable, or use another place")
        }
        io::ErrorKind::StaleNetworkFileHandle => Some("the share is gone; mount it again"),
        _ if files::is_device_error(cause) => Some("the disk or the share fails; see `dmesg`"),
        _ => None,
    }
}
