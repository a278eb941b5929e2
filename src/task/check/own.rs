//! Checks of our own files on the host: their owner and mode, and whether they are as the package installed them.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::catalog::hooks::VZDUMP_HOOK;
use crate::catalog::own::{Care, IDENTITY, IDENTITY_PLACES, PACKAGE, PRIVATE_NAMES, PROGRAM};
use crate::plan::check::{self, Area, CheckFinding, CheckState};
use crate::store::Store;
use crate::sys::dpkg;
use crate::sys::fs::{files, mounts, permissions};
use crate::sys::host::{CONFIG_DIR, Host, STATE_DIR};

/// A directory with more is none of ours.
const ENTRIES_MAX: usize = 5_000;
/// An identity is a few lines.
const IDENTITY_MAX_BYTES: u64 = 64 << 10;
/// The number of letters of the key itself, after its kind.
const KEY_LETTERS: usize = 40;
/// The places that are looked at before each backup.
pub const FEW_PLACES: [(&str, usize); 1] = [IDENTITY_PLACES[0]];

/// Owner and mode of the program, the configuration, its secrets, the work directories. What is not there is silent.
pub fn own(host: &Host) -> Vec<CheckFinding> {
    let mut wanted: Vec<(PathBuf, Care)> = vec![
        (PROGRAM.into(), Care::Public),
        (VZDUMP_HOOK.into(), Care::Public),
        (CONFIG_DIR.into(), Care::Public),
    ];
    let names = list(host, Path::new(CONFIG_DIR)).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    wanted.extend(names.into_iter().map(|name| (Path::new(CONFIG_DIR).join(&name), care(&name))));
    wanted.push((STATE_DIR.into(), Care::Private));

    let mut findings = Vec::new();
    for (path, care) in wanted {
        findings.extend(look(host, &path, care));
    }
    if findings.is_empty() {
        return findings;
    }

    // All is well: one line is enough.
    if findings.iter().all(|finding| finding.state == CheckState::Ok) {
        let what = format!("{} files and directories of pbx-config belong to root", findings.len());
        return vec![CheckFinding::new(Area::Rights, CheckState::Ok, what)];
    }

    findings.retain(|finding| finding.state != CheckState::Ok);
    findings
}

/// A directory that is reached through no link: one might lead onto a mount that hangs.
fn list(host: &Host, folder: &Path) -> Option<fs::ReadDir> {
    if !files::is_plain(host.root(), folder) {
        return None;
    }
    fs::read_dir(host.dir(folder).ok()?.here()).ok()
}

fn care(name: &OsStr) -> Care {
    let name = name.to_string_lossy();
    let private = PRIVATE_NAMES.iter().any(|ending| name.ends_with(ending));
    if private { Care::Private } else { Care::Public }
}

fn look(host: &Host, path: &Path, care: Care) -> Option<CheckFinding> {
    match permissions::of(host.root(), path) {
        Ok(held) => Some(check::rights(path, care, held.rights, files::uid())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        Err(error) if error.raw_os_error() == Some(files::LOOP) => {
            let what = format!("{}: its path contains a link, which is not followed", path.display());
            Some(CheckFinding::new(Area::Rights, CheckState::Notice, what))
        }
        Err(error) => {
            let what = format!("{}: cannot be checked: {error}", path.display());
            Some(
                CheckFinding::new(Area::Rights, CheckState::Warning, what)
                    .hint("run it as root; see `ls -ld`"),
            )
        }
    }
}

/// Snapshots that others than root may read or change. Shares have owners and modes of their own.
pub fn store_rights(host: &Host, store: &dyn Store) -> Vec<CheckFinding> {
    let Some(folder) = store.folder().and_then(|folder| fs::canonicalize(folder).ok()) else {
        return Vec::new();
    };
    let Ok(folder) = folder.strip_prefix(host.root()) else { return Vec::new() };
    if mounts::is_foreign(host.root(), folder) || !mounts::has_rights(host.root(), folder) {
        return Vec::new();
    }

    let folder = Path::new("/").join(folder);
    let mut findings: Vec<CheckFinding> =
        folder.ancestors().skip(1).filter_map(|above| may_be_swapped(host, above, &folder)).collect();
    for place in [folder.clone(), folder.join(&host.facts.node)] {
        let private = permissions::of(host.root(), &place).is_ok_and(|held| held.rights.mode & 0o077 == 0);
        findings.extend(look(host, &place, Care::Public).filter(|finding| finding.state != CheckState::Ok));
        if private {
            // Nobody else gets past it.
            return findings;
        }
        let names = list(host, &place).into_iter().flatten().flatten().take(ENTRIES_MAX);
        let mut names: Vec<PathBuf> = names.map(|entry| place.join(entry.file_name())).collect();
        names.sort_unstable();
        let snapshots = names.iter().filter(|path| {
            path.file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|name| name.ends_with(crate::model::snapshot::SUFFIX))
        });
        let found = snapshots.filter_map(|path| look(host, path, Care::Private));
        findings.extend(found.filter(|finding| finding.state != CheckState::Ok));
    }
    findings
}

/// A directory above a store whose owner, or others, may put another one in the place of the store.
fn may_be_swapped(host: &Host, above: &Path, store: &Path) -> Option<CheckFinding> {
    /// In a directory with this bit only the owner of a file may rename it.
    const STICKY: u32 = 0o1000;
    const OTHERS: u32 = 0o002;
    let seen = permissions::of(host.root(), above).ok()?.rights;
    let is_foreign = seen.uid != 0 && seen.uid != files::uid();
    if !is_foreign && seen.mode & (STICKY | OTHERS) != OTHERS {
        return None;
    }
    let (above, store) = (above.display(), store.display());
    let what = format!("{above}: {seen}: others than root may put another directory in the place of {store}");
    let hint =
        format!("`chown root: {above}; chmod o-w {above}`, or move the store to where only root writes");
    Some(CheckFinding::new(Area::Rights, CheckState::Problem, what).hint(hint))
}

/// Every file of the package as it was brought, by dpkg's checksums.
pub fn package(host: &Host) -> Vec<CheckFinding> {
    let finding = |state, what: String| CheckFinding::new(Area::Package, state, what);
    let Some(shipped) = dpkg::shipped(host.root(), PACKAGE) else {
        return vec![finding(
            CheckState::Notice,
            format!("{PACKAGE} is not installed as a package: nothing to compare"),
        )];
    };
    let mut findings = Vec::new();
    for (path, sum) in &shipped {
        let why = match dpkg::sum(host.root(), path) {
            Ok(now) if now == *sum => continue,
            Ok(_) => "is not as it was installed by the package".to_owned(),
            Err(error) => error.to_string(),
        };
        let what = format!("/{}: {why}", path.display());
        findings.push(finding(CheckState::Problem, what).hint(format!("apt install --reinstall {PACKAGE}")));
    }

    if findings.is_empty() {
        findings.push(finding(
            CheckState::Ok,
            format!("{} files are as installed by the package", shipped.len()),
        ));
    }
    findings
}

/// Private age identities in files: with one, whoever takes this host opens what was sealed for it.
pub fn identities(host: &Host, places: &[(&str, usize)]) -> Vec<CheckFinding> {
    let mut found = Vec::new();
    let mut left = ENTRIES_MAX;
    for (place, depth) in places {
        search(host, Path::new(place), *depth, &mut left, &mut found);
    }
    found.sort_unstable();
    found.dedup();
    let finding = |path: PathBuf| {
        let what =
            format!("{}: contains a private age identity: it opens what is encrypted to it", path.display());
        CheckFinding::new(Area::Keys, CheckState::Problem, what).hint(
            "a host only needs recipients: keep the identity on paper or on another machine, and remove it here",
        )
    };
    found.into_iter().map(finding).collect()
}

fn search(host: &Host, folder: &Path, depth: usize, left: &mut usize, found: &mut Vec<PathBuf>) {
    if mounts::is_foreign(host.root(), folder.strip_prefix("/").unwrap_or(folder)) {
        return;
    }

    for entry in list(host, folder).into_iter().flatten().flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = folder.join(entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 1 {
            search(host, &path, depth - 1, left, found);
        } else if kind.is_file() && holds_identity(host, &path) {
            found.push(path);
        }
    }
}

fn holds_identity(host: &Host, path: &Path) -> bool {
    let file = host.dir_of(path).and_then(|dir| dir.file(path.file_name().unwrap_or_default()));
    let Ok(file) = file else { return false };
    let mut text = Vec::new();
    if file.take(IDENTITY_MAX_BYTES).read_to_end(&mut text).is_err() {
        return false;
    }
    let marks = text.windows(IDENTITY.len()).enumerate().filter(|(_, window)| *window == IDENTITY.as_bytes());
    marks.into_iter().any(|(at, _)| {
        let rest = &text[at + IDENTITY.len()..];
        let letters = rest
            .iter()
            .take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b'-');
        letters.count() >= KEY_LETTERS
    })
}
