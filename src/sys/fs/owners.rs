//! Names of a host's users and groups by number, as its own files tell them.

use std::collections::HashMap;
use std::path::Path;

use super::files::read_small;

pub struct Owners {
    pub users: HashMap<u32, String>,
    pub groups: HashMap<u32, String>,
}

impl Owners {
    /// A file that is missing or cannot be read gives no names.
    pub fn of(root: &Path) -> Self {
        Self { users: names_by_id(root, "/etc/passwd"), groups: names_by_id(root, "/etc/group") }
    }

    pub fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_default()
    }

    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_default()
    }

    pub fn gid(&self, group: &str) -> Option<u32> {
        self.groups.iter().find(|(_, name)| *name == group).map(|(gid, _)| *gid)
    }
}

fn names_by_id(root: &Path, path: &str) -> HashMap<u32, String> {
    /// A hundred thousand users.
    const MAX_BYTES: u64 = 16 << 20;
    let text = read_small(root, path, MAX_BYTES).unwrap_or_default();
    text.split(|b| *b == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let name = fields.next()?;
            let id = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
            Some((id, String::from_utf8_lossy(name).into_owned()))
        })
        .collect()
}
