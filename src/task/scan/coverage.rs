//! Completeness: everything of this host that is in no backup. Every file of the looked-at trees, and every one that
//! units, cron, guests, storages and mounts name, is saved, left out by name, as its package brought it, or
//! unexplained.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::referenced_files;
use super::sources::Sources;
use super::walk::{self, Scan, ScanResult};
use crate::catalog::guests::{GuestPath, KINDS};
use crate::catalog::matcher::{CatalogMatcher, ItemPatterns};
use crate::catalog::{self, Item, Source, coverage};
use crate::model::index::{EntryKind, Name};
use crate::model::section;
use crate::plan::coverage::{
    Coverage, UnsavedPlace, Why, gather, in_crontab, in_guest, in_storages, in_unit,
};
use crate::plan::select;
use crate::sys::fs::files::{self, FileNode};
use crate::sys::fs::glob::{Pattern, PatternIndex};
use crate::sys::fs::walk::WalkedPath;
use crate::sys::fs::{mounts, walk as tree_walk};
use crate::sys::host::Host;
use crate::sys::process::signals::check_stopped;
use crate::sys::{dpkg, pmxcfs};

/// A tree that strayed into /usr/local must not keep a run: what comes beyond is not looked at.
const FILES_MAX: u64 = 60_000;
/// No unit and no crontab is larger.
const TEXT_MAX_BYTES: u64 = 1 << 20;
const CRONTABS_MAX: usize = 10_000;

/// Finds what a backup of everything would miss. Only names are read, and the files that are not saved.
pub fn of_host(host: &Host, sources: &Sources) -> Result<Option<Coverage>> {
    let scan = sources.scan(host);
    let left = walk::walk(&scan, &sources.items, &mut |_, _| Ok(()))?;
    look(&scan, &sources.items, &left)
}

/// `left` is of a walk over `taken`. None when dpkg's database is not there: then every file is nobody's.
/// Errors: a signal.
pub fn look(scan: &Scan, taken: &[&'static Item], left: &ScanResult) -> Result<Option<Coverage>> {
    let root = scan.host.root();
    let Some(conffiles) = dpkg::conffiles(root) else { return Ok(None) };
    let (seen, left_out) = (&left.seen, left_out(scan, taken));
    let foreign = mounts::foreign_mounts(root);
    let mut look =
        Look { scan, seen, left_out, foreign, all: Vec::new(), named: Vec::new(), truncated: false };
    look.trees()?;
    look.cluster();
    look.named();
    check_stopped()?;
    Ok(Some(look.judge(&conffiles)))
}

/// Returns the patterns that no item takes by name: the catalogue's own, the configuration's `exclude`, and items
/// that were not asked for.
fn left_out(scan: &Scan, taken: &[&'static Item]) -> PatternIndex<()> {
    let taken: HashSet<&str> = taken.iter().map(|item| item.id).collect();
    let on_host: HashSet<&str> = select::of_host(&scan.host.facts).map(|item| item.id).collect();
    let mut index: PatternIndex<()> = scan.exclude.iter().collect();

    for ItemPatterns { item, globs, except } in CatalogMatcher::get().items() {
        let is_here = on_host.contains(item.id);
        let is_left_out = matches!(item.source, Source::LeftOut(_)) || (is_here && !taken.contains(item.id));
        let named = match item.source {
            _ if !is_left_out => Vec::new(),
            Source::MountSecrets => referenced_files::secrets(scan.host),
            _ => globs.clone(),
        };
        let except = except.iter().filter(|_| is_here);
        for glob in except.chain(&named) {
            index.insert(glob, ());
        }
    }
    index
}

fn is_not_in_use(path: &Path) -> bool {
    coverage::NOT_IN_USE.iter().any(|ending| path.as_os_str().as_encoded_bytes().ends_with(ending.as_bytes()))
}

struct Look<'a> {
    scan: &'a Scan<'a>,
    seen: &'a HashSet<PathBuf>,
    left_out: PatternIndex<()>,
    foreign: HashMap<PathBuf, String>,
    /// Every file of the trees that is not left out, in their order.
    all: Vec<PathBuf>,
    /// Files that others name, and who; none of them in `all`.
    named: Vec<(PathBuf, String)>,
    truncated: bool,
}

impl Look<'_> {
    fn trees(&mut self) -> Result<()> {
        let Self { scan, seen, left_out, foreign, all, truncated, .. } = self;
        let mut count = 0;

        for tree in Pattern::all(&coverage::TREES)? {
            let enter = |path: &Path| {
                !foreign.contains_key(path)
                    && !walk::is_pictured(scan.host, path)
                    && (seen.contains(path) || !left_out.covers(path))
            };
            tree_walk::walk(scan.host.root(), &tree, &enter, &mut |met| {
                let WalkedPath::Entry(path, stat) = met else { return Ok(()) };
                if stat.node == FileNode::Kept(EntryKind::Dir)
                    || (is_not_in_use(path) && !seen.contains(path))
                {
                    return Ok(());
                }
                count += 1;
                if count > FILES_MAX {
                    *truncated = true;
                    return Ok(());
                }
                all.push(path.to_owned());
                check_stopped()
            })?;
        }
        Ok(())
    }

    fn cluster(&mut self) {
        let nodes = self.scan.picture.iter().flat_map(|picture| &picture.nodes);
        let base = Path::new(pmxcfs::MOUNT.trim_start_matches('/'));
        let paths = nodes.filter(|node| node.data.is_some()).map(|node| base.join(&node.path));
        let wanted = paths.filter(|path| self.seen.contains(path) || !self.left_out.covers(path));
        self.all.extend(wanted.collect::<Vec<_>>());
    }

    fn named(&mut self) {
        let mut names: Vec<(PathBuf, String)> = Vec::new();
        let units = Path::new(coverage::UNITS.trim_start_matches('/'));
        for path in self.all.iter().filter(|path| path.starts_with(units)) {
            let by = format!("/{}", walk::shown(path));
            if let Ok(target) = fs::read_link(self.scan.host.root().join(path)) {
                names.push((walk::resolve(path, &target), by));
            } else {
                let text = self.text(path);
                names.extend(in_unit(&text).into_iter().map(|name| (name.into(), by.clone())));
            }
        }

        for path in self.crontabs() {
            let (by, text) = (format!("/{}", walk::shown(&path)), self.text(&path));
            names.extend(in_crontab(&text).into_iter().map(|name| (name.into(), by.clone())));
        }

        names.extend(self.of_cluster());
        for pattern in referenced_files::secrets(self.scan.host) {
            names.push((pattern.text().into(), format!("{} or {}", catalog::FSTAB, catalog::CRYPTTAB)));
        }

        let mut met = HashSet::new();
        for (path, by) in names {
            let path = self.merged(path.strip_prefix("/").unwrap_or(&path));
            if !met.contains(&path) && self.is_candidate(&path) {
                met.insert(path.clone());
                self.named.push((path, by));
            }
        }
    }

    /// `/lib/x` is `/usr/lib/x` where the one is a link to the other.
    fn merged(&self, path: &Path) -> PathBuf {
        let first = path.components().next().map(|part| Path::new("").join(part));
        let linked = first.is_some_and(|first| {
            coverage::MERGED.iter().any(|name| first == Path::new(name))
                && fs::read_link(self.scan.host.root().join(first)).is_ok()
        });
        if linked { Path::new("usr").join(path) } else { path.to_owned() }
    }

    /// A file on this host's own disks that nothing else accounts for.
    fn is_candidate(&self, path: &Path) -> bool {
        let inside = |trees: &[&str]| trees.iter().any(|tree| path.starts_with(tree.trim_start_matches('/')));
        !inside(coverage::NO_SETTINGS)
            && !inside(&coverage::TREES)
            && !self.seen.contains(path)
            && !path.ancestors().any(|above| self.foreign.contains_key(above))
            && !self.left_out.covers(path)
            && files::is_plain(self.scan.host.root(), path)
            && files::lstat(&self.scan.host.root().join(path))
                .is_ok_and(|stat| stat.node == FileNode::Kept(EntryKind::File))
    }

    fn crontabs(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for place in coverage::CRONTABS.iter().map(|place| Path::new(place.trim_start_matches('/'))) {
            let plain = files::is_plain(self.scan.host.root(), place);
            match self.scan.host.dir(place).and_then(|dir| dir.names()) {
                _ if !plain => {}
                Ok(names) => {
                    found.extend(names.into_iter().take(CRONTABS_MAX).map(|name| place.join(name)));
                }
                Err(_) => found.push(place.to_owned()),
            }
        }
        found.sort_unstable();
        found
    }

    fn text(&self, path: &Path) -> String {
        // Not through a link: it may lead into /etc/pve, which may hang.
        let text = files::read_plain(self.scan.host.root(), path, TEXT_MAX_BYTES).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Lists the files that storages and this node's guests name.
    fn of_cluster(&self) -> Vec<(PathBuf, String)> {
        let Some(picture) = self.scan.picture else { return Vec::new() };
        let text = |node: &pmxcfs::PmxcfsNode| {
            node.data.as_deref().map(|data| String::from_utf8_lossy(data).into_owned()).unwrap_or_default()
        };
        let storages = picture.nodes.iter().find(|node| node.path == Path::new(catalog::STORAGES));
        let storages = storages.map(text).unwrap_or_default();

        // A file that cannot be parsed is a problem of the walk already.
        let storages = section::parse(catalog::STORAGES, &storages).unwrap_or_default();
        let by = format!("{}/{}", pmxcfs::MOUNT, catalog::STORAGES);
        let mut names: Vec<(PathBuf, String)> =
            in_storages(&storages).into_iter().map(|name| (name.into(), by.clone())).collect();
        for kind in &KINDS {
            let is_own = |path: &Path| {
                GuestPath::of(&Path::new(catalog::PVE_TREE).join(path)).is_some_and(|guest| {
                    guest.kind.word == kind.word && guest.node == self.scan.host.facts.node
                })
            };
            for guest in picture.nodes.iter().filter(|node| is_own(&node.path)) {
                let by = format!("{}/{}", pmxcfs::MOUNT, walk::shown(&guest.path));
                for name in in_guest(&text(guest)) {
                    let path = if name.starts_with('/') {
                        Some(PathBuf::from(name))
                    } else {
                        referenced_files::snippet(&storages, name)
                    };
                    names.extend(path.map(|path| (path, by.clone())));
                }
            }
        }
        names
    }

    fn judge(self, conffiles: &HashMap<PathBuf, dpkg::Md5Sum>) -> Coverage {
        let root = self.scan.host.root();
        let unsaved = self.all.iter().filter(|path| !self.seen.contains(*path));
        let unsaved = unsaved.chain(self.named.iter().map(|(path, _)| path));
        let unsaved: Vec<PathBuf> = unsaved.filter(|path| !conffiles.contains_key(*path)).cloned().collect();
        let owned = dpkg::owned(root, &unsaved);
        let why = |path: &Path| match conffiles.get(path) {
            Some(sum) => (dpkg::sum(root, path).ok().as_ref() != Some(sum)).then_some(Why::Changed),
            None => (!owned.contains(path)).then_some(Why::Unknown),
        };
        let mut coverage = Coverage { truncated: self.truncated, ..Coverage::default() };
        let mut all: Vec<(PathBuf, Option<Why>)> = Vec::with_capacity(self.all.len());
        for path in self.all {
            let saved = self.seen.contains(&path);
            let why = if saved { None } else { why(&path) };
            coverage.saved += u64::from(saved);
            coverage.packaged += u64::from(!saved && why.is_none());
            all.push((path, why));
        }

        coverage.files = (all.len() + self.named.len()) as u64;
        let trees: Vec<PathBuf> =
            coverage::TREES.iter().map(|tree| PathBuf::from(tree.trim_start_matches('/'))).collect();
        coverage.places = gather(&all, &trees);
        for (path, by) in &self.named {
            match why(path) {
                Some(_) => {
                    let path = Name::from(path.as_path());
                    coverage.places.push(UnsavedPlace {
                        path,
                        why: Why::Named,
                        files: 1,
                        by: Some(by.clone()),
                    });
                }
                None => coverage.packaged += 1,
            }
        }

        coverage.unexplained = coverage.places.iter().map(|place| place.files).sum();
        coverage
    }
}
