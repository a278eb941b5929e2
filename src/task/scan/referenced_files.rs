//! Files that are named elsewhere: what unlocks this host's mounts, and snippets of its storages. By words of tables
//! and configurations alone; nothing is mounted here.

use std::path::{Path, PathBuf};

use crate::catalog;
use crate::model::problem::Problem;
use crate::model::section;
use crate::sys::fs::glob::Pattern;
use crate::sys::fs::{files, mounts};
use crate::sys::host::Host;
use crate::sys::pmxcfs::{self, PmxcfsPicture};

/// The size limit of fstab and similar tables.
const TABLE_MAX_BYTES: u64 = 1 << 20;

/// Credentials and key files that mounts need: crypttab's third field, and options of fstab.
pub(crate) fn secrets(host: &Host) -> Vec<Pattern> {
    const OPTIONS: [&str; 6] = ["credentials", "cred", "passwd", "passfile", "keyfile", "identityfile"];
    let mut paths = fields(host, catalog::CRYPTTAB, 2);
    for options in fields(host, catalog::FSTAB, 3) {
        let values = options.split(',').filter_map(|option| option.split_once('='));
        paths.extend(values.filter(|(key, _)| OPTIONS.contains(key)).map(|(_, value)| value.to_owned()));
    }
    // A device as a key (/dev/urandom for swap) is nothing to keep.
    let files = paths.iter().filter(|path| !path.starts_with("/dev/"));
    files.filter_map(|path| Pattern::literal(&mounts::unescape(path.as_bytes()))).collect()
}

/// One field of every line of a table like fstab.
fn fields(host: &Host, path: &str, field: usize) -> Vec<String> {
    let text = files::read_small(host.root(), path, TABLE_MAX_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().nth(field).map(str::to_owned)).collect()
}

/// Snippet directories of storages that live on this host's own disks; a network storage keeps its own.
pub(crate) fn snippets(picture: Option<&PmxcfsPicture>, problems: &mut Vec<Problem>) -> Vec<Pattern> {
    let node = picture
        .and_then(|picture| picture.nodes.iter().find(|node| node.path == Path::new(catalog::STORAGES)));
    let text = node.and_then(|node| node.data.as_deref()).map(String::from_utf8_lossy).unwrap_or_default();
    snippet_folders(&text).unwrap_or_else(|error| {
        let what = format!("{}/{error}; snippets of its storages are not saved", pmxcfs::MOUNT);
        problems.push(Problem::warning(what).hint("fix the line, or add the directories with `include`"));
        Vec::new()
    })
}

/// Kinds of storages on this host's own disks.
const LOCAL_STORAGES: [&str; 2] = ["dir", "btrfs"];

/// Returns the path of a volume `STORAGE:snippets/NAME`. None: it is not on this host's own disks.
pub(crate) fn snippet(storages: &[section::Section], volume: &str) -> Option<PathBuf> {
    let (id, name) = volume.split_once(':')?;
    let storage = storages.iter().find(|storage| storage.id == id)?;
    let name = name.strip_prefix("snippets/").filter(|_| LOCAL_STORAGES.contains(&storage.kind.as_str()))?;
    Some(Path::new(storage.get("path")?).join(snippets_dir(storage)).join(name))
}

/// Reads the patterns of the snippet directories from a storage.cfg.
pub fn snippet_folders(text: &str) -> Result<Vec<Pattern>, section::SyntaxError> {
    let sections = section::parse(catalog::STORAGES, text)?;
    let storages = sections.iter().filter(|storage| has_snippets(storage));
    let folders =
        storages.filter_map(|storage| Some(Path::new(storage.get("path")?).join(snippets_dir(storage))));
    Ok(folders.filter_map(|folder| Pattern::literal(&folder)).collect())
}

fn has_snippets(storage: &section::Section) -> bool {
    let content = storage.get("content").unwrap_or_default();
    LOCAL_STORAGES.contains(&storage.kind.as_str())
        && content.split(',').any(|word| word.trim() == "snippets")
}

/// `content-dirs snippets=some/folder` moves them.
fn snippets_dir(storage: &section::Section) -> &str {
    let moved = storage.get("content-dirs").unwrap_or_default();
    let moved = moved.split(',').find_map(|dir| dir.trim().strip_prefix("snippets="));
    moved.unwrap_or("snippets").trim_start_matches('/')
}
