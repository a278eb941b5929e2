//! Selection of a snapshot's entries that a restore was asked for, each under the item that its path belongs to. The
//! snapshot's own word is not believed: a path that is not its item's, or that an item leaves out, is skipped with a
//! reason.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Result;

use crate::catalog::matcher::CatalogMatcher;
use crate::catalog::{Item, RestoreRule, Source};
use crate::model::index::{Entry, EntryKind, Name, STATE_DIR};
use crate::model::problem::{Fault, FaultKind};
use crate::plan::restore::objects::object_names;
use crate::plan::restore::{Content, PVE, RestoreRequest, SelectedEntries, SelectedEntry, adapt, skip_entry};
use crate::sys::fs::glob::Pattern;
use crate::sys::pmxcfs;
use crate::sys::process::signals::check_stopped;
use crate::task::snapshots::ChosenSnapshot;

/// The size limit of an entry that is kept in memory, to be compared and merged.
pub const SMALL_BYTES: u64 = 256 << 10;
/// The largest file of /etc/pve.
const PART_BYTES: u64 = 1 << 20;
/// The size limit of the database of /etc/pve, when it is to be put in place.
const DATABASE_BYTES: u64 = 512 << 20;
/// The size limit of all entries together; what does not fit is only hashed.
const ALL_BYTES: usize = 24 << 20;

/// Proves the whole snapshot and picks from it.
/// Errors: `Verification`; `Usage` for words that name nothing; `NotFound` when nothing is selected.
pub fn pick(chosen: &ChosenSnapshot, request: &RestoreRequest) -> Result<(SelectedEntries, String)> {
    request.selection.check()?;
    adapt::check(request)?;

    let filter = Filter::new(request)?;
    let mut contents = HashMap::new();
    let mut kept = 0;
    let mut archive = chosen.open()?;

    let index = archive.read(&chosen.path, &mut |member, content| {
        if member.kind == EntryKind::File && filter.keeps(&member.path, member.size, kept) {
            let mut bytes = Vec::with_capacity(usize::try_from(member.size).unwrap_or_default());
            content.read_to_end(&mut bytes)?;
            kept += bytes.len();
            contents.insert(member.path.clone(), bytes);
        }
        check_stopped()
    })?;

    let mut picked = SelectedEntries {
        id: index.id.clone(),
        facts: index.facts,
        wanted: Vec::new(),
        skipped: Vec::new(),
        folders: HashMap::new(),
        parts: Vec::new(),
        contents,
    };
    filter.fill(&mut picked, index.entries);
    if picked.wanted.is_empty() && picked.skipped.is_empty() && request.objects.is_empty() {
        let fault = Fault::new(FaultKind::NotFound, format!("nothing in {} is selected", picked.id));
        return Err(fault.hint("see `pbx-config show SNAP --files`").into());
    }
    Ok((picked, archive.head.manifest_sha256))
}

/// A request with its globs compiled.
struct Filter<'a> {
    request: &'a RestoreRequest,
    globs: Vec<Pattern>,
    only_objects: bool,
    database: Name,
}

impl<'a> Filter<'a> {
    fn new(request: &'a RestoreRequest) -> Result<Self> {
        let has_others = !request.selection.only.is_empty() || !request.paths.is_empty();
        Ok(Self {
            request,
            globs: request.paths.iter().map(|path| Pattern::from_option(path)).collect::<Result<_>>()?,
            only_objects: !request.objects.is_empty() && !has_others,
            database: Name::new(pmxcfs::DATABASE.trim_start_matches('/')),
        })
    }

    fn is_database(&self, path: &Name) -> bool {
        self.request.database.is_some() && *path == self.database
    }

    /// Reports whether objects that were asked for may stand in this file.
    fn may_have_objects(&self, path: &Name) -> bool {
        !self.request.objects.is_empty() && path.as_path().to_str().is_some_and(object_names::reads)
    }

    /// Reports whether the content of a file is kept in memory, beside so many bytes.
    fn keeps(&self, path: &Name, size: u64, kept: usize) -> bool {
        // An object is looked for in files of any size that pmxcfs takes.
        let is_small = size <= SMALL_BYTES || (size <= PART_BYTES && self.may_have_objects(path));
        (is_small && kept < ALL_BYTES) || (size <= DATABASE_BYTES && self.is_database(path))
    }

    fn takes(&self, entry: &Entry) -> bool {
        let path = entry.path.as_path();
        let is_selected = self.request.selection.takes(&entry.item)
            && (self.globs.is_empty() || self.globs.iter().any(|glob| glob.covers(path)))
            && !(self.only_objects || path.starts_with(STATE_DIR));
        is_selected || self.is_database(&entry.path)
    }

    /// Picks from the entries of a snapshot.
    fn fill(&self, picked: &mut SelectedEntries, entries: Vec<Entry>) {
        let firsts = first_names(&entries);
        for entry in entries {
            let is_taken = self.takes(&entry);
            if entry.kind == EntryKind::Dir {
                // A directory on the way to an item's files is made when they need it.
                if !is_taken || owner(&entry).is_err() {
                    picked.folders.insert(entry.path.clone(), entry);
                    continue;
                }
                picked.folders.insert(entry.path.clone(), entry.clone());
            } else if entry.kind == EntryKind::File
                && self.may_have_objects(&entry.path)
                && let Ok(item) = owner(&entry)
            {
                picked.parts.push(wanted(entry.clone(), item, true, &firsts));
            }
            if !is_taken {
                continue;
            }
            let is_exact = self.request.paths.iter().any(|word| is_path_of(word, entry.path.as_path()));
            let is_named = is_exact || self.request.selection.only.contains(&entry.item);
            match owner(&entry) {
                Ok(item) => {
                    let selected = wanted(entry, item, is_named, &firsts);
                    picked.wanted.push(SelectedEntry { is_exact, ..selected });
                }
                Err(reason) => {
                    let hint = "use `pbx-config cat SNAP PATH` to put it in place by hand".to_owned();
                    skip_entry(&mut picked.skipped, &entry, is_named, reason, Some(hint));
                }
            }
        }
    }
}

/// Reports whether a word of `--path` is this very path: neither a directory above it nor a glob.
fn is_path_of(word: &str, path: &Path) -> bool {
    !word.contains(['*', '?', '[']) && Path::new(word.trim_start_matches('/')) == path
}

/// Finds the entries that others are second names of.
fn first_names(entries: &[Entry]) -> HashMap<Name, Entry> {
    let links = entries.iter().filter(|entry| entry.kind == EntryKind::Hardlink);
    let targets: HashSet<&Name> = links.filter_map(|entry| entry.link.as_ref()).collect();
    let firsts = entries.iter().filter(|entry| targets.contains(&entry.path));
    firsts.map(|entry| (entry.path.clone(), entry.clone())).collect()
}

/// Selects an entry. A second name of a file comes back as a file of its own: to link across what changes and what
/// stays would tie together what is not tied here.
fn wanted(
    mut entry: Entry,
    item: &'static Item,
    is_named: bool,
    firsts: &HashMap<Name, Entry>,
) -> SelectedEntry {
    item.id.clone_into(&mut entry.item);
    let mut content = Content::None;
    if entry.kind == EntryKind::File {
        content = Content::Entry(entry.path.clone());
    } else if let (EntryKind::Hardlink, Some(first)) = (entry.kind, entry.link.clone())
        && let Some(source) = firsts.get(&first)
    {
        entry.link = None;
        (entry.kind, entry.size) = (EntryKind::File, source.size);
        entry.sha256.clone_from(&source.sha256);
        entry.xattrs.clone_from(&source.xattrs);
        content = Content::Entry(first);
    }
    SelectedEntry { entry, item, content, is_named, is_exact: false, is_merged: false }
}

/// Returns the item whose rules hold for an entry. Errors: why it is none's.
fn owner(entry: &Entry) -> Result<&'static Item, String> {
    let (path, id) = (entry.path.as_path(), entry.item.as_str());
    let matcher = CatalogMatcher::get();
    let Some(claimed) = matcher.patterns(id) else {
        return Err(format!("this version does not know '{id}'"));
    };
    if let Some(item) = matcher.left_out(path)
        && let RestoreRule::Never(why) = item.restore
    {
        return Err(format!("is never restored: {why}"));
    }

    match claimed.item.source {
        // What the configuration, fstab or the storages name may be anywhere, but not another item's.
        Source::Configured | Source::MountSecrets | Source::Snippets => {
            let on_pve = || matcher.patterns("pve-other").filter(|_| path.starts_with(PVE));
            let below = || on_pve().map_or(claimed.item, |rest| rest.item);
            Ok(matcher.owner_of(path).unwrap_or_else(below))
        }
        Source::PmxcfsRest if claimed.cover(path) => Ok(matcher.owner_of(path).unwrap_or(claimed.item)),
        _ if claimed.cover(path) => Ok(claimed.item),
        _ => Err(format!("is not a file of '{id}', as the snapshot says")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::index::Mtime;

    fn entry(item: &str, path: &str) -> Entry {
        Entry {
            item: item.into(),
            path: Name::new(path),
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            owner: String::new(),
            group: String::new(),
            mtime: Mtime::default(),
            size: 0,
            sha256: String::new(),
            link: None,
            secret: false,
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn a_path_comes_back_by_the_rules_of_its_own_item() {
        let item = |item: &str, path: &str| owner(&entry(item, path)).map(|item| item.id);
        assert_eq!(item("banners", "etc/motd"), Ok("banners"));
        assert_eq!(item("include", "srv/app/x"), Ok("include"));
        assert_eq!(item("include", "etc/shadow"), Ok("accounts"));
        assert_eq!(item("include", "etc/pve/corosync.conf"), Ok("pve-corosync"));
        assert_eq!(item("include", "etc/pve/own.cfg"), Ok("pve-other"));
        assert_eq!(item("pve-other", "etc/pve/user.cfg"), Ok("pve-users"));
        assert_eq!(item("pve-other", "etc/pve/own.cfg"), Ok("pve-other"));
    }

    #[test]
    fn a_path_is_named_by_itself_alone() {
        let path = Path::new("etc/pve/storage.cfg");
        for word in ["/etc/pve/storage.cfg", "etc/pve/storage.cfg", "/etc/pve/storage.cfg/"] {
            assert!(is_path_of(word, path), "{word}");
        }
        for word in ["/etc/hosts", "/etc/pve", "/etc/pve/", "/etc/pve/**", "/etc/pve/storage.cf?", "/", ""] {
            assert!(!is_path_of(word, path), "{word}");
        }
    }

    #[test]
    fn a_path_that_its_item_does_not_cover_is_skipped() {
        for (item, path) in [
            ("banners", "etc/shadow"),
            ("pve-other", "etc/shadow"),
            ("no-such-row", "etc/motd"),
            ("include", "var/lib/proxmox-backup-extra/undo/x/plan.json"),
            ("include", "etc/pve/priv/lock/file-user_cfg"),
            ("root", "root/.bash_history"),
            ("defaults", "etc/default/grub"),
        ] {
            assert!(owner(&entry(item, path)).is_err(), "{item} {path}");
        }
    }
}
