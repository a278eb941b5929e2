//! Files of a host that are in no backup, as a few lines: which files other files name, and directories told as one.
//! Pure; looking at the host is `task::scan::coverage`.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::catalog::coverage::{GUEST_PATHS, GUEST_VOLUMES, UNIT_KEYS};
use crate::model::index::Name;
use crate::model::section::Section;

/// Why a file that is not saved should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// No package owns it.
    Unknown,
    /// It is not as its package brought it.
    Changed,
    /// Something that is saved needs it.
    Named,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Changed => "changed",
            Self::Named => "named",
        })
    }
}

/// A file in no backup, or a directory with nothing but such.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnsavedPlace {
    pub path: Name,
    pub why: Why,
    /// 1 for a file.
    pub files: u64,
    /// The file that names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The share of a host that is in the backup.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Coverage {
    /// Files of [`TREES`](crate::catalog::coverage::TREES) and of /etc/pve that are not left out by name, and what
    /// others name.
    pub files: u64,
    pub saved: u64,
    /// Files as their package brought them.
    pub packaged: u64,
    pub unexplained: u64,
    /// There was more than is looked at.
    pub truncated: bool,
    pub places: Vec<UnsavedPlace>,
}

/// Absolute paths in a line of anything.
pub fn paths_in(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| c.is_whitespace() || "\"'`=:,;|&<>()$".contains(c));
    let words = words.map(|word| word.trim_start_matches(['-', '@', '+', '!']));
    words.filter(|word| word.starts_with('/') && word.len() > 1 && !word.contains(['*', '?', '%', '{']))
}

/// Returns the paths that a unit runs and reads.
pub fn in_unit(text: &str) -> Vec<&str> {
    let mut wanted = false;
    let mut goes_on = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if !goes_on {
            wanted = UNIT_KEYS.iter().any(|key| line.trim_start().starts_with(key));
        }
        goes_on = line.ends_with('\\');
        if wanted {
            found.extend(paths_in(line));
        }
    }
    found
}

/// Returns the paths that the lines of a crontab name.
pub fn in_crontab(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(paths_in).collect()
}

/// Returns the names in the current configuration of a guest: volumes `STORAGE:snippets/NAME`, and absolute paths.
pub fn in_guest(text: &str) -> Vec<&str> {
    let current = text.lines().take_while(|line| !line.starts_with('['));
    let settings = current.filter_map(|line| line.split_once(':')).filter(|(key, _)| !key.starts_with('#'));
    let mut found = Vec::new();
    for (key, value) in settings {
        if GUEST_VOLUMES.contains(&key) {
            found.extend(
                value.split(',').map(|part| part.split_once('=').map_or(part, |(_, volume)| volume).trim()),
            );
        } else if GUEST_PATHS.iter().any(|known| key.starts_with(known)) {
            found.extend(paths_in(value));
        }
    }
    found
}

/// Returns the paths that storages name beside the directories they are.
pub fn in_storages(storages: &[Section]) -> Vec<&str> {
    const PLACES: [&str; 2] = ["path", "mountpoint"];
    let entries = storages.iter().flat_map(|storage| &storage.entries);
    let values =
        entries.filter(|entry| !PLACES.contains(&entry.key.as_str())).map(|entry| entry.value.as_str());
    values.filter(|value| value.starts_with('/')).collect()
}

/// Gathers unexplained files below `trees` into places: a directory in which nothing is explained is one. `all` is
/// every file that was looked at.
pub fn gather(all: &[(PathBuf, Option<Why>)], trees: &[PathBuf]) -> Vec<UnsavedPlace> {
    let mut folders: HashMap<&Path, (u64, u64)> = HashMap::new();
    for (path, why) in all {
        for folder in above(path, trees) {
            let counts = folders.entry(folder).or_default();
            counts.0 += 1;
            counts.1 += u64::from(*why == Some(Why::Unknown));
        }
    }

    let mut places: Vec<UnsavedPlace> = Vec::new();
    for (path, why) in all.iter().filter_map(|(path, why)| Some((path, (*why)?))) {
        let whole = above(path, trees)
            .filter(|folder| folders.get(folder).is_some_and(|(all, bad)| all == bad && *bad > 1));
        // The outermost one comes last.
        let folder = whole.last().filter(|_| why == Why::Unknown);
        let name = Name::from(folder.unwrap_or(path));
        match places.last_mut() {
            Some(last) if folder.is_some() && last.path == name => last.files += 1,
            _ => places.push(UnsavedPlace { path: name, why, files: 1, by: None }),
        }
    }
    places
}

/// Returns the directories that a file lies in, the trees themselves not among them.
fn above<'a>(path: &'a Path, trees: &'a [PathBuf]) -> impl Iterator<Item = &'a Path> {
    let inside = |folder: &&Path| trees.iter().any(|tree| folder.starts_with(tree) && folder != tree);
    path.ancestors().skip(1).take_while(inside)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_that_is_unknown_as_a_whole_is_one_place() {
        let file = |path: &str, why| (PathBuf::from(path), why);
        let all = [
            file("etc/app/a", Some(Why::Unknown)),
            file("etc/app/sub/b", Some(Why::Unknown)),
            file("etc/mixed/a", None),
            file("etc/mixed/b", Some(Why::Unknown)),
            file("etc/one", Some(Why::Changed)),
        ];
        let places = gather(&all, &[PathBuf::from("etc")]);
        let shown: Vec<_> = places.iter().map(|p| format!("{} {} {}", p.why, p.files, p.path)).collect();
        assert_eq!(shown, ["unknown 2 etc/app", "unknown 1 etc/mixed/b", "changed 1 etc/one"]);
    }

    #[test]
    fn a_unit_names_its_programs_and_files_and_nothing_of_its_descriptions() {
        let text = "[Unit]\nDocumentation=file:/srv/doc\n[Service]\nExecStart=-/srv/run \\\n --conf=/srv/conf\n\
                    EnvironmentFile=-/srv/env\nWorkingDirectory=/srv/dir\nExecStop=/bin/kill -s TERM $MAINPID\n";
        assert_eq!(in_unit(text), ["/srv/run", "/srv/conf", "/srv/env", "/bin/kill"]);
    }

    #[test]
    fn a_crontab_names_what_it_runs() {
        let text = "# m h /srv/not\n5 4 * * * root [ -x /srv/a ] && /srv/a >/dev/null; . /srv/env\n";
        assert_eq!(in_crontab(text), ["/srv/a", "/srv/a", "/dev/null", "/srv/env"]);
    }

    #[test]
    fn a_guest_names_its_scripts_but_not_those_of_its_snapshots() {
        let text = "#hookscript: no\nhookscript: local:snippets/h.pl\ncicustom: user=nas:snippets/u.yml,meta=x:snippets/m\n\
                    lxc.hook.mount: /srv/mount\nmemory: 1\n[old]\nhookscript: local:snippets/old.pl\n";
        assert_eq!(
            in_guest(text),
            ["local:snippets/h.pl", "nas:snippets/u.yml", "x:snippets/m", "/srv/mount"]
        );
    }
}
