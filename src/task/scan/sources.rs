//! Sources of a run: the items it takes, the picture of /etc/pve, what is included and left out.

use std::path::Path;

use anyhow::Result;
use jiff::tz::TimeZone;

use super::walk::{self, Found, Scan, ScanResult};
use crate::catalog::{self, Item, Source};
use crate::config::{self, Config, Glob};
use crate::model::facts::Product;
use crate::model::index::EntryKind;
use crate::model::problem::Problem;
use crate::plan::select::Selection;
use crate::store::Store;
use crate::sys::fs::files;
use crate::sys::fs::glob::Pattern;
use crate::sys::host::{HOSTNAME, Host};
use crate::sys::pmxcfs::{self, PmxcfsPicture};

/// The findings of one item.
#[derive(Debug, serde::Serialize)]
pub struct Planned {
    pub item: &'static str,
    pub title: &'static str,
    pub files: u64,
    pub bytes: u64,
}

/// The sources that a run reads from.
pub struct Sources {
    pub items: Vec<&'static Item>,
    picture: Option<PmxcfsPicture>,
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    /// Access to the products' APIs.
    pub apis: Vec<(Product, config::ApiConfig)>,
    pub problems: Vec<Problem>,
}

impl Sources {
    pub fn new(
        host: &Host,
        config: &Config,
        stores: &[Box<dyn Store>],
        selection: &Selection,
    ) -> Result<Self> {
        let mut wanted = selection.clone();
        wanted.skip.extend(config.backup.skip.iter().cloned());
        wanted.check()?;

        let items = wanted.items(&host.facts);
        let mut problems = config.problems.clone();
        let picture = if items.iter().any(|item| needs_picture(item)) {
            read_picture(host, &mut problems)
        } else {
            None
        };
        problems.extend(unfit(host));
        problems.extend(missing_products(host));
        let patterns = |globs: &[Glob]| globs.iter().map(|glob| glob.0.clone()).collect::<Vec<_>>();
        let mut exclude = patterns(&config.backup.exclude);
        exclude.extend(own_places(host, stores));

        // What is asked on this machine says nothing of a system that is only mounted here.
        let apis = if host.exec.is_of_host() { config.apis.clone() } else { Vec::new() };
        Ok(Self { items, picture, include: patterns(&config.backup.include), exclude, apis, problems })
    }

    /// Files of /etc/pve. None: the host is not a PVE host, or no item of /etc/pve was asked for.
    pub fn pmxcfs_files(&self) -> Option<u64> {
        let wanted = self.items.iter().any(|item| matches!(item.source, Source::PmxcfsRest));
        let files = self.picture.iter().flat_map(|picture| &picture.nodes).filter(|node| node.data.is_some());
        wanted.then(|| files.count() as u64)
    }

    pub fn scan<'a>(&'a self, host: &'a Host) -> Scan<'a> {
        Scan { host, picture: self.picture.as_ref(), include: &self.include, exclude: &self.exclude }
    }
}

fn needs_picture(item: &Item) -> bool {
    matches!(item.source, Source::Pmxcfs(_) | Source::PmxcfsRest | Source::Database | Source::Snippets)
}

fn read_picture(host: &Host, problems: &mut Vec<Problem>) -> Option<PmxcfsPicture> {
    match pmxcfs::read(host) {
        Ok(mut picture) => {
            log::debug!("pmxcfs: {} entries from {}, {:?}", picture.nodes.len(), picture.how, picture.state);
            problems.append(&mut picture.problems);
            if picture.nodes.is_empty() {
                let what =
                    format!("{} is empty: the snapshot contains nothing of the cluster", pmxcfs::MOUNT);
                problems.push(Problem::error(what).hint("see `journalctl -u pve-cluster`"));
            }
            Some(picture)
        }
        Err(error) => {
            let what = format!("{} could not be read and is not in the snapshot: {error:#}", pmxcfs::MOUNT);
            problems.push(
                Problem::error(what)
                    .hint("see `systemctl status pve-cluster` and `journalctl -u pve-cluster`"),
            );
            None
        }
    }
}

/// Returns the problems of the host's name and clock that make a snapshot hard to find again.
fn unfit(host: &Host) -> Vec<Problem> {
    /// Long before this program: a clock without a battery begins at 1970.
    const NO_YEAR_BEFORE: i16 = 2020;
    let mut problems = Vec::new();
    if !host.has_name() {
        let what =
            format!("{HOSTNAME} contains no name; the snapshot is saved as one of '{}'", host.facts.node);
        problems.push(Problem::warning(what).hint("set one with `hostnamectl set-hostname NAME`"));
    }
    if host.now.to_zoned(TimeZone::UTC).year() < NO_YEAR_BEFORE {
        let what = format!("the clock says {}", host.now);
        problems.push(Problem::warning(what).hint("set the clock; snapshots are named and sorted by it"));
    }
    problems
}

/// A product whose configuration is not where it must be: the snapshot would miss what it exists for.
fn missing_products(host: &Host) -> Vec<Problem> {
    let mut problems = Vec::new();
    if host.facts.products.is_empty() {
        let what = format!("no Proxmox product was found; looked for {}", host.facts.looked_at.join(", "));
        problems.push(Problem::notice(what).hint("only the system's own configuration is saved"));
    }
    if host.facts.has(Product::Pbs) && !host.metadata(catalog::PBS_DIR).is_ok_and(|meta| meta.is_dir()) {
        problems.push(
            Problem::error(format!(
                "{} is missing, though Proxmox Backup Server is installed",
                catalog::PBS_DIR
            ))
            .hint("see `systemctl status proxmox-backup`"),
        );
    }
    problems
}

/// Our own stores and directories are never part of a snapshot.
fn own_places(host: &Host, stores: &[Box<dyn Store>]) -> Vec<Pattern> {
    let places = stores
        .iter()
        .filter_map(|store| store.folder())
        .map(Path::to_owned)
        .chain([host.state_path(), host.run_dir()]);
    let inside = places.filter_map(|place| place.strip_prefix(host.root()).map(Path::to_owned).ok());
    inside.filter_map(|path| Pattern::literal(&Path::new("/").join(path))).collect()
}

/// Counts what every item finds on this host, without reading contents.
pub fn count(host: &Host, sources: &Sources) -> Result<(Vec<Planned>, ScanResult)> {
    let mut planned: Vec<Planned> = Vec::new();
    let left = walk::walk(&sources.scan(host), &sources.items, &mut |item, found| {
        if planned.last().is_none_or(|last| last.item != item.id) {
            planned.push(Planned { item: item.id, title: item.title, files: 0, bytes: 0 });
        }
        let (counts, bytes) = match found {
            Found::File { stat, .. } => (stat.node != files::FileNode::Kept(EntryKind::Dir), stat.size),
            Found::Pve { node, .. } => (node.data.is_some(), node.data.as_ref().map_or(0, Vec::len) as u64),
            Found::Database { data, .. } => (true, data.len() as u64),
        };
        if let (true, Some(last)) = (counts, planned.last_mut()) {
            last.files += 1;
            last.bytes += bytes;
        }
        Ok(())
    })?;

    Ok((planned, left))
}
