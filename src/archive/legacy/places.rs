//! Where a path of an old archive belongs: files of the host stay where they are, what commands said and what the
//! tool wrote of itself goes where our outputs are, in the layout of 2025 as in the later one.

use crate::model::index::{Name, STATE_DIR};

/// Folders of outputs, with what they are called among ours. A later prefix of the same beginning must not stand
/// behind an earlier one.
const OUTPUTS: [(&str, &str); 11] = [
    ("var/lib/proxsave-info/", ""),
    ("var/lib/pve-cluster/info/", "pve/"),
    // Copies of guest backups, which a restore would put beside the live database.
    ("var/lib/pve-cluster/small_backups/", "pve/small_backups/"),
    ("var/lib/pve-cluster/selected_backups/", "pve/selected_backups/"),
    // Of 2025.
    ("commands/", "commands/"),
    ("datastores/", "datastores/"),
    ("users/", "users/"),
    ("var/lib/proxmox-backup-info/", ""),
    ("var/lib/proxmox-backup/pxar_metadata/", "pxar_metadata/"),
    ("var/lib/proxmox-backup/selected_pxar/", "selected_pxar/"),
    ("var/lib/proxmox-backup/small_pxar/", "small_pxar/"),
];
const MANIFEST: &str = "manifest.json";
/// The list of links that stand for equal files.
pub const DEDUP: &str = "var/lib/proxsave-info/dedup_manifest.json";

/// The path as an index of ours has it. None: a folder of outputs, which is none of the host's.
pub fn place(path: &Name) -> Option<Name> {
    let bytes = path.as_bytes();
    if bytes == MANIFEST.as_bytes() {
        return Some(Name::new(format!("{STATE_DIR}/{MANIFEST}")));
    }
    for (from, to) in OUTPUTS {
        if bytes == from.trim_end_matches('/').as_bytes() {
            return None;
        }
        if let Some(rest) = bytes.strip_prefix(from.as_bytes()) {
            let mut place = format!("{STATE_DIR}/{to}").into_bytes();
            place.extend_from_slice(rest);
            return Some(Name::new(place));
        }
    }
    Some(path.clone())
}

/// The name below our outputs.
pub fn output(path: &Name) -> Option<String> {
    let rest = path.as_bytes().strip_prefix(STATE_DIR.as_bytes())?.strip_prefix(b"/")?;
    Some(String::from_utf8_lossy(rest).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_of_outputs_come_to_one_place() {
        let placed = |path: &str| place(&Name::new(path)).map(|name| name.to_string());
        for (path, expected) in [
            (
                "var/lib/proxsave-info/commands/pve/pveversion.txt",
                Some(".pbx/state/commands/pve/pveversion.txt"),
            ),
            ("commands/pveversion.txt", Some(".pbx/state/commands/pveversion.txt")),
            ("var/lib/pve-cluster/info/jobs/backup_jobs.json", Some(".pbx/state/pve/jobs/backup_jobs.json")),
            ("var/lib/pve-cluster/config.db", Some("var/lib/pve-cluster/config.db")),
            ("manifest.json", Some(".pbx/state/manifest.json")),
            ("etc/manifest.json", Some("etc/manifest.json")),
            ("commands", None),
            ("var/lib/proxsave-info", None),
        ] {
            assert_eq!(placed(path).as_deref(), expected, "{path}");
        }
    }
}
