//! Catalogue item as `catalog` shows it: the fact, and what this host has of it.

use serde::Serialize;

use crate::catalog::{Item, On, RestoreRule, Risk, Source, Tied, api};
use crate::cli::render;
use crate::sys::pmxcfs;
use crate::task::scan::sources::Planned;

/// A catalogue item as it is shown.
#[derive(Serialize)]
pub struct ItemRow {
    pub item: &'static str,
    pub title: &'static str,
    pub category: &'static str,
    on: On,
    source: Vec<String>,
    pub restore: String,
    secret: bool,
    tied: Tied,
    risk: Risk,
    lock: Option<&'static str>,
    /// Units that must be stopped while it is written.
    stop: &'static [&'static str],
    restart: &'static [&'static str],
    note: &'static str,
    /// None for an item that collects no files.
    files: Option<u64>,
    bytes: u64,
}

impl ItemRow {
    pub fn new(item: &'static Item, found: Option<&Planned>) -> Self {
        let globs = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        let source: Vec<String> = match item.source {
            Source::Files(paths) | Source::LeftOut(paths) => globs(paths),
            Source::Pmxcfs(paths) => paths.iter().map(|path| format!("/etc/pve/{path}")).collect(),
            Source::PmxcfsRest => vec!["everything else in /etc/pve".to_owned()],
            Source::Database => vec![pmxcfs::DATABASE.to_owned()],
            Source::Output { argv, .. } => vec![argv.join(" ")],
            Source::Api { path, query, .. } => {
                api::of(item.on).map(|api| api.command(path, query).join(" ")).into_iter().collect()
            }
            Source::MountSecrets => vec!["files named in /etc/fstab and /etc/crypttab".to_owned()],
            Source::Snippets => vec!["snippets of the local storages in storage.cfg".to_owned()],
            Source::Configured => vec!["`include` in pbx-config.cfg".to_owned()],
        };

        let restore = match item.restore {
            _ if matches!(item.source, Source::LeftOut(_)) => "left out".to_owned(),
            RestoreRule::Files => "files".to_owned(),
            RestoreRule::Pmxcfs => "pmxcfs".to_owned(),
            RestoreRule::AddLines => "merge".to_owned(),
            RestoreRule::Stopped(_) => "while stopped".to_owned(),
            RestoreRule::Never(_) => "never".to_owned(),
        };

        let note = match item.restore {
            RestoreRule::Never(reason) => reason,
            _ => item.note,
        };
        let counts = item.source.answer().is_none() && !matches!(item.source, Source::LeftOut(_));

        Self {
            item: item.id,
            title: item.title,
            category: item.category.name(),
            on: item.on,
            source,
            restore,
            secret: item.secret,
            tied: item.tied,
            risk: item.risk,
            lock: item.lock,
            stop: match item.restore {
                RestoreRule::Stopped(units) => units,
                _ => &[],
            },
            restart: item.restart,
            note,
            files: counts.then(|| found.map_or(0, |row| row.files)),
            bytes: found.map_or(0, |row| row.bytes),
        }
    }

    pub fn found(&self) -> String {
        match self.files {
            None => "-".to_owned(),
            Some(0) => "none".to_owned(),
            Some(files) => format!("{files} ({})", render::size(self.bytes)),
        }
    }
}
