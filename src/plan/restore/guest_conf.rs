//! The configuration of a guest (`qemu-server/100.conf`, `lxc/102.conf`): where its lines stand, and what of a value
//! is a volume or a bridge. Reads whatever it is given; what it does not know it leaves alone.
//! Not here: what becomes of them (`references`).

use std::ops::Range;

use super::objects::config_edit;
use crate::catalog::restore::references::{
    DISK_WORDS, FILE_LISTS, GUEST_CARD, NUMBERED_DISKS, SINGLE_DISKS, SINGLE_FILES,
};

const LOCK: &str = "lock";

/// `key: value` of the configuration itself, or of a snapshot or the pending changes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfEntry<'a> {
    /// The name between `[` and `]`; None before the first of them.
    pub section: Option<&'a str>,
    pub key: &'a str,
    pub value: &'a str,
    /// The place of the value in the text.
    pub at: Range<usize>,
}

/// A part of a value that names something elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedFile {
    /// `storage:volume`, a disk of the guest: where the storage stands, and the volume.
    Disk {
        storage: Range<usize>,
        volume: Range<usize>,
    },
    /// Like `Disk`, but a file that other guests may use as well.
    File {
        storage: Range<usize>,
        volume: Range<usize>,
    },
    Bridge(Range<usize>),
}

/// All `key: value` lines; comments, headers, blank and unknown lines have none.
pub fn entries(text: &str) -> Vec<GuestConfEntry<'_>> {
    let mut section = None;
    let mut found = Vec::new();

    for at in config_edit::lines(text.as_bytes()) {
        let Some(line) = text.get(at.clone()) else { continue };
        let content = line.trim_end();
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name);
        } else if !content.starts_with('#')
            && let Some((key, rest)) = content.split_once(':')
            && is_key(key)
        {
            let value = rest.trim_start();
            let start = at.start + content.len() - value.len();
            found.push(GuestConfEntry { section, key, value, at: start..start + value.len() });
        }
    }
    found
}

/// Returns the task that held the guest's lock when it was saved: "backup", "migrate", "snapshot" ...
pub fn lock(text: &str) -> Option<&str> {
    let lock = entries(text).into_iter().find(|entry| entry.section.is_none() && entry.key == LOCK);
    lock.map(|entry| entry.value)
}

fn is_key(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

impl GuestConfEntry<'_> {
    /// Returns the files that the value names, with places in the text.
    pub fn names(&self) -> Vec<NamedFile> {
        if is_disk(self.key) {
            let disk = |(number, part): (usize, Part)| {
                let word = part.key.map_or(number == 0, |key| DISK_WORDS.contains(&key));
                let (storage, volume) = volume(part.value, part.at).filter(|_| word)?;
                // An image, a template or a snippet stands in a directory of its kind and belongs to no guest.
                let shared = self.value.contains("media=cdrom") && !is_owned_drive(part.value);
                Some(if shared {
                    NamedFile::File { storage, volume }
                } else {
                    NamedFile::Disk { storage, volume }
                })
            };
            self.parts().enumerate().filter_map(disk).collect()
        } else if SINGLE_FILES.contains(&self.key) {
            let place = volume(self.value, self.at.clone());
            place.map(|(storage, volume)| NamedFile::File { storage, volume }).into_iter().collect()
        } else if FILE_LISTS.contains(&self.key) {
            let file = |part: Part| {
                let (storage, volume) = volume(part.value, part.at)?;
                Some(NamedFile::File { storage, volume })
            };
            self.parts().filter_map(file).collect()
        } else if numbered(self.key, GUEST_CARD.0) {
            self.parts()
                .filter(|part| part.key == Some(GUEST_CARD.1))
                .map(|part| NamedFile::Bridge(part.at))
                .collect()
        } else {
            Vec::new()
        }
    }

    /// `a=b,c`: each part with the place of its value.
    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let mut start = self.at.start;
        self.value.split(',').map(move |part| {
            let (key, value) = part.split_once('=').map_or((None, part), |(key, value)| (Some(key), value));
            let end = start + part.len();
            start = end + 1;
            Part { key, value, at: end - value.len()..end }
        })
    }
}

struct Part<'a> {
    key: Option<&'a str>,
    value: &'a str,
    at: Range<usize>,
}

/// Reports whether the guest's own state is behind this key.
pub fn is_disk(key: &str) -> bool {
    SINGLE_DISKS.contains(&key) || NUMBERED_DISKS.iter().any(|word| numbered(key, word))
}

fn numbered(key: &str, word: &str) -> bool {
    key.strip_prefix(word).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// The cloud-init drive is a CD that PVE makes for this guest.
fn is_owned_drive(value: &str) -> bool {
    value.ends_with("cloudinit") || value.contains("-cloudinit.")
}

/// `storage:volume`; None for a path, `none`, `cdrom`, and for what has no name of a storage.
fn volume(value: &str, at: Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let (storage, volume) = value.split_once(':')?;
    let named = storage.starts_with(|c: char| c.is_ascii_alphabetic())
        && storage.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let colon = at.start + storage.len();
    (named && !volume.is_empty()).then_some((at.start..colon, colon + 1..at.end))
}
