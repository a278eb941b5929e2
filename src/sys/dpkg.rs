//! What dpkg knows of files: who owns a path, and what it was like when its package brought it. Read from dpkg's own
//! database, so that another root can be asked and no tool has to run. Versions of packages: `host`.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use super::fs::files;
use super::host_dir::HostDir;

pub const STATUS: &str = "/var/lib/dpkg/status";
const INFO: &str = "/var/lib/dpkg/info";
const DIVERSIONS: &str = "/var/lib/dpkg/diversions";
/// A hundred times what a host has: a file beyond is none of Debian's.
pub const STATUS_MAX_BYTES: u64 = 256 << 20;
/// Of one package: the kernel's headers have a few MB.
const LIST_MAX_BYTES: u64 = 64 << 20;
const LISTS_MAX: usize = 100_000;
/// What a checksum is made of at most; no configuration file is larger.
const SUMMED_MAX_BYTES: u64 = 64 << 20;

/// An MD5 in lower-case hex: the only checksum that dpkg has.
pub type Md5Sum = String;

/// Configuration files with the checksum of the version that was installed; None without a database.
/// Paths are relative to the root.
pub fn conffiles(root: &Path) -> Option<HashMap<PathBuf, Md5Sum>> {
    let status = files::read_small(root, STATUS, STATUS_MAX_BYTES).ok()?;
    Some(parse_conffiles(&status))
}

/// ` /etc/name MD5 [obsolete] [remove-on-upgrade]` below `Conffiles:`.
fn parse_conffiles(status: &[u8]) -> HashMap<PathBuf, Md5Sum> {
    const FLAGS: [&[u8]; 2] = [b"obsolete", b"remove-on-upgrade"];
    let mut found = HashMap::new();
    let mut inside = false;

    for line in status.split(|byte| *byte == b'\n') {
        let Some(line) = line.strip_prefix(b" ") else {
            inside = line == b"Conffiles:";
            continue;
        };
        if !inside {
            continue;
        }
        let mut words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        while words.last().is_some_and(|word| FLAGS.contains(word)) {
            words.pop();
        }
        let Some(sum) = words.pop().and_then(|sum| std::str::from_utf8(sum).ok()) else { continue };
        if let Some(path) = relative(&words.join(&b' ')) {
            found.insert(path, sum.to_owned());
        }
    }
    found
}

/// Those of `paths` (relative to the root) that an installed package owns, or has moved aside.
pub fn owned(root: &Path, paths: &[PathBuf]) -> HashSet<PathBuf> {
    let wanted: HashMap<&[u8], &PathBuf> = paths.iter().map(|path| (merged(path), path)).collect();
    let mut found = HashSet::new();
    let mut look = |list: &[u8]| {
        for line in list.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"/")) {
            if let Some(path) = wanted.get(merged(Path::new(OsStr::from_bytes(line)))) {
                found.insert((*path).clone());
            }
        }
    };
    look(&files::read_small(root, DIVERSIONS, LIST_MAX_BYTES).unwrap_or_default());
    for name in info(root).filter(|name| name.as_encoded_bytes().ends_with(b".list")) {
        look(&files::read_small(root, Path::new(INFO).join(name), LIST_MAX_BYTES).unwrap_or_default());
    }
    found
}

fn info(root: &Path) -> impl Iterator<Item = std::ffi::OsString> {
    let names = HostDir::open(root, Path::new(INFO)).and_then(|dir| dir.names());
    names.unwrap_or_default().into_iter().take(LISTS_MAX)
}

/// Packages write `/lib` where the merged file system says `/usr/lib`, and the other way round.
fn merged(path: &Path) -> &[u8] {
    const MERGED: [&[u8]; 3] = [b"lib", b"bin/", b"sbin/"];
    let path = path.as_os_str().as_bytes();
    match path.strip_prefix(b"usr/") {
        Some(rest) if MERGED.iter().any(|folder| rest.starts_with(folder)) => rest,
        _ => path,
    }
}

/// The files of a package with the checksums it was built with, configuration files not among them.
/// None when it is not installed.
pub fn shipped(root: &Path, package: &str) -> Option<Vec<(PathBuf, Md5Sum)>> {
    let text = files::read_small(root, format!("{INFO}/{package}.md5sums"), LIST_MAX_BYTES).ok()?;
    let lines = text.split(|byte| *byte == b'\n');
    let sums = lines.filter_map(|line| {
        let (sum, rest) = line.split_at_checked(32)?;
        let path = Path::new(OsStr::from_bytes(rest.strip_prefix(b"  ")?)).to_owned();
        Some((path, std::str::from_utf8(sum).ok()?.to_owned()))
    });
    Some(sums.collect())
}

/// Returns the checksum of a file (relative to the root) as it is now; no link to it is followed.
pub fn sum(root: &Path, path: &Path) -> std::io::Result<Md5Sum> {
    let dir = HostDir::open(root, path.parent().unwrap_or(Path::new("")))?;
    let file = dir.file(path.file_name().unwrap_or_default())?;
    let mut content = Vec::new();
    file.take(SUMMED_MAX_BYTES).read_to_end(&mut content)?;
    Ok(super::hex(&Md5::digest(&content)))
}

fn relative(path: &[u8]) -> Option<PathBuf> {
    path.strip_prefix(b"/").map(|path| Path::new(OsStr::from_bytes(path)).to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn configuration_files_are_read_with_their_flags_and_blanks() {
        let found = parse_conffiles(
            b"Package: a\nConffiles:\n /etc/a b 0123\n /etc/c 4567 obsolete\n /etc/d newconffile\nVersion: 1\n /etc/no 89\n",
        );
        let sum = |path: &str| found.get(Path::new(path)).map(String::as_str);
        assert_eq!((sum("etc/a b"), sum("etc/c"), sum("etc/no")), (Some("0123"), Some("4567"), None));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_path_is_owned_under_either_name_of_a_merged_folder_and_when_it_was_moved_aside() {
        let dir = root(&[
            ("var/lib/dpkg/info/a.list", "/.\n/lib/systemd/system/a.service\n/etc/a\n"),
            ("var/lib/dpkg/info/b:amd64.list", "/usr/bin/b\n"),
            ("var/lib/dpkg/info/c.conffiles", "/etc/c\n"),
            ("var/lib/dpkg/diversions", "/etc/x\n/etc/x.distrib\nb\n"),
        ]);
        let paths = ["usr/lib/systemd/system/a.service", "etc/a", "bin/b", "etc/c", "etc/x.distrib"];
        let owned = owned(dir.path(), &paths.map(PathBuf::from));
        assert_eq!(owned.len(), 4, "{owned:?}");
        assert!(!owned.contains(Path::new("etc/c")));
    }

    #[test]
    fn a_checksum_is_that_of_md5sum() {
        let dir = root(&[("a", "hello\n")]);
        assert_eq!(sum(dir.path(), Path::new("a")).unwrap(), "b1946ac92492d2347c6235b4d2611184");
    }
}
