//! The house stays a house: imports go one way and never in a circle, each third-party crate stays on its floor,
//! facts about Proxmox stay in the catalogue, config.db has one door, names are borne once, folders are not full.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "floors/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

const ROOMS: [&str; 5] = ["config", "catalog", "archive", "store", "notify"];

fn floor(folder: &str) -> u8 {
    match folder {
        "model" => 0,
        "sys" => 1,
        "plan" => 3,
        "task" => 4,
        "cli" | "main.rs" | "lib.rs" => 5,
        room if ROOMS.contains(&room) => 2,
        other => panic!("src/{other} stands on no floor: give it one in tests/floors.rs and src/lib.rs"),
    }
}

/// Crates that may be used only in these folders.
const CRATES: [(&str, &[&str]); 30] = [
    ("md5", &["sys"]),
    ("age", &["archive"]),
    ("age_core", &["archive"]),
    ("bech32", &["archive"]),
    ("scrypt", &["archive"]),
    ("lettre", &["notify"]),
    ("qrcodegen", &["cli"]),
    ("ring", &["sys", "archive", "notify"]),
    ("serde_saphyr", &["config"]),
    ("similar", &["plan"]),
    ("ureq", &["sys"]),
    ("rustls", &["sys"]),
    ("rustls_native_certs", &["sys"]),
    ("regex", &["notify"]),
    ("base64", &["archive", "config", "notify", "sys"]),
    ("liblzma", &["archive"]),
    ("flate2", &["archive"]),
    ("bzip2", &["archive"]),
    ("nix", &["sys"]),
    ("libc", &["sys"]),
    ("rusqlite", &["sys"]),
    ("xattr", &["sys"]),
    ("syslog", &["sys"]),
    ("glob", &["sys"]),
    ("clap", &["cli"]),
    ("zstd", &["archive"]),
    ("tar", &["archive"]),
    ("sha2", &["archive", "sys"]),
    ("anyhow", &["sys", "config", "catalog", "archive", "store", "notify", "plan", "task", "cli"]),
    ("log", &["sys", "config", "store", "notify", "task", "cli"]),
];

struct Source {
    path: PathBuf,
    folder: String,
    /// Without its tests, comments and blank lines.
    lines: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let sources: Vec<Source> = files
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&src).unwrap();
            let folder = below.iter().next().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
            let lines = lines.map(|(n, line)| (n + 1, line.to_owned())).collect();
            Source { path: Path::new("src").join(below), folder, lines }
        })
        .collect();
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
}

/// Words that follow `before` in a line.
fn words_after<'a>(line: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(before).map(move |(at, _)| {
        let rest = &line[at + before.len()..];
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
    })
}

fn report(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn imports_go_one_way() {
    let mut broken = Vec::new();
    for source in sources() {
        let Source { path, folder, lines } = &source;
        for (n, line) in lines {
            for other in
                words_after(line, "crate::").filter(|other| other != folder && !["", "crate"].contains(other))
            {
                let (own, theirs) = (floor(folder), floor(other));
                let at = format!("{}:{n} imports crate::{other}", path.display());
                if own == 2 && theirs == 2 {
                    broken.push(format!("{at}: rooms do not know each other, pass it a value"));
                } else if own == 3 && !["catalog", "model"].contains(&other) {
                    broken.push(format!("{at}: a plan is a pure function of nouns and the catalogue"));
                } else if theirs >= own {
                    broken.push(format!("{at}: floor {own} does not look up to floor {theirs}"));
                }
            }
        }
    }
    report(&broken);
}

#[test]
fn third_party_crates_stay_on_their_floor() {
    let mut broken = Vec::new();
    for source in sources() {
        for (n, line) in &source.lines {
            for (name, folders) in CRATES {
                let path = format!("{name}::");
                let used = line.match_indices(&path).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    // `::tar::x` and `tar::x` are the crate, `super::tar::x` and `archive::tar::x` are ours.
                    let ours = ["super::", "archive::", "sys::", "fs::"]
                        .iter()
                        .any(|module| line[..at].ends_with(module));
                    let own_module = !line[..at].ends_with("::")
                        && ["tar", "glob", "log"].contains(&name)
                        && source.folder == own(name);
                    !ours && !own_module && before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                });
                if used && !folders.contains(&source.folder.as_str()) {
                    let allowed = folders.join(", ");
                    broken.push(format!(
                        "{}:{n} uses {name}, which belongs in {allowed}",
                        source.path.display()
                    ));
                }
            }
            if source.folder == "model" {
                for word in words_after(line, "use ").filter(|_| line.starts_with("use ")) {
                    if !["std", "serde", "jiff", "self", "super", "crate"].contains(&word) {
                        broken
                            .push(format!("{}:{n} uses {word}: nouns are plain data", source.path.display()));
                    }
                }
                for word in
                    ["std::fs", "std::process", "std::net", "Instant::now", "Zoned::now", "Timestamp::now"]
                {
                    if line.contains(word) {
                        broken.push(format!(
                            "{}:{n} has {word}: nouns do no I/O and know no clock",
                            source.path.display()
                        ));
                    }
                }
            }
        }
    }
    report(&broken);
}

/// The folder whose own module has the name of a crate.
fn own(name: &str) -> &'static str {
    if name == "tar" { "archive" } else { "sys" }
}

#[test]
fn unsafe_code_stays_in_sys() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.folder != "sys") {
        for (n, line) in &source.lines {
            if line.contains("unsafe ") || line.contains("allow(unsafe_code)") {
                broken.push(format!("{}:{n} is unsafe: that stays in src/sys", source.path.display()));
            }
        }
    }
    report(&broken);
}

#[test]
fn paths_of_the_host_are_named_in_the_catalogue_and_in_sys() {
    let mut broken = Vec::new();
    // The layout of the predecessor's archives is a format, and names its folders.
    let format = Path::new("src/archive/legacy/places.rs");
    let free = |s: &&Source| ["catalog", "sys", "cli"].contains(&s.folder.as_str()) || s.path == format;
    for source in sources().iter().filter(|source| !free(source)) {
        for (n, line) in &source.lines {
            let foreign = ["\"/etc/", "\"etc/", "\"/var/", "\"var/lib", "\"/root"]
                .iter()
                .any(|path| line.contains(path));
            if foreign && !line.contains("proxmox-backup-extra") {
                let at = format!("{}:{n}", source.path.display());
                broken.push(format!(
                    "{at} names a path of the host: facts about Proxmox stand in src/catalog or src/sys"
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn the_database_of_pmxcfs_has_one_door() {
    const DOOR: &str = "src/sys/pmxcfs/database.rs";
    let mut broken = Vec::new();
    let mut doors = Vec::new();
    for source in sources() {
        // It opens no file: it works on a database in memory.
        let is_offline = source.path == Path::new("src/sys/pmxcfs/offline.rs");
        let is_pmxcfs = source.path.starts_with("src/sys/pmxcfs");
        let is_door = source.path == Path::new(DOOR);
        for (n, line) in &source.lines {
            let at = format!("{}:{n}", source.path.display());
            if !is_pmxcfs && (line.contains("rusqlite") || line.contains("sqlite3")) {
                broken.push(format!("{at} speaks to SQLite: only src/sys/pmxcfs does, see {DOOR} for why"));
            }
            let ours = ["open_shared(", "open_copy("].iter().any(|door| line.contains(door)) && !is_offline;
            let in_memory = line.contains("open_in_memory()");
            if !is_door && line.contains("Connection::open") && !ours && !in_memory {
                broken.push(format!("{at} opens a file: the doors are in {DOOR}"));
            }
            if line.contains("::open")
                && (line.contains("Connection::") || line.contains("Self::open_with_flags"))
            {
                doors.push(line.trim().to_owned());
            }
            if line.contains("immutable=") || line.contains("mode=rw") {
                broken.push(format!("{at}: a running pmxcfs loses data or dies of such an open"));
            }
        }
    }
    // The shared one with its URI, and the one of a private copy. A third one needs reference/pmxcfs.md 7.1.
    let opens: Vec<_> = doors.iter().filter(|line| line.contains("open_with_flags")).collect();
    assert_eq!(opens.len(), 2, "config.db is opened in an unknown way: {opens:?}");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DOOR)).unwrap();
    assert!(text.contains("\"?mode=ro&readonly_shm=1\""), "the shared open lost its one harmless mode");
    assert!(!text.contains("Connection::open("), "the default open breaks a running pmxcfs");
    report(&broken);
}

/// The whole of src, as the checks of `tree` take it.
fn files() -> Vec<tree::File> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&top.join("src"), &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "the sources were not found");
    let file = |path: &PathBuf| {
        let below = path.strip_prefix(top).unwrap().to_str().unwrap();
        tree::File::new(below, &fs::read_to_string(path).unwrap())
    };
    paths.iter().map(file).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    report(&tree::circles(&files()));
}

#[test]
fn no_two_public_types_bear_the_same_name() {
    report(&tree::doubled_types(&files()));
}

#[test]
fn the_doc_of_a_function_begins_with_a_verb_or_its_noun() {
    report(&tree::odd_docs(&files()));
}

#[test]
fn no_folder_holds_too_many_files() {
    report(&tree::full_folders(files().iter().map(tree::File::path)));
}

/// Outside of `sys` and `store`: who opens paths without `HostDir`, and why that leads nowhere else.
const OPENS_PATHS: [(&str, &str); 8] = [
    ("src/cli/mod.rs", "--root itself, and where a store of another system leads"),
    ("src/task/backup/mod.rs", "the snapshot file that this run has just made"),
    ("src/task/check/own.rs", "lists an open directory; compares where a store is"),
    ("src/task/keys/mod.rs", "an identity goes where a person says"),
    ("src/task/restore/prepare.rs", "a plan goes where a person says"),
    ("src/task/setup/migrate.rs", "a file that a person names; programs that run here"),
    ("src/task/snapshots/extract.rs", "the directory of --to, which a person names"),
    ("src/task/snapshots/store_test.rs", "its own temporary directory"),
];
/// The same of single lines, which look and open nothing.
const LOOKS_AT_PATHS: [(&str, &str); 5] = [
    ("src/task/snapshots/mod.rs", "std::fs::canonicalize(place)"),
    ("src/task/restore/observe.rs", "fs::read_link(full)"),
    ("src/task/restore/observe.rs", "fs::canonicalize(host.root())"),
    ("src/task/scan/coverage.rs", "fs::read_link("),
    ("src/task/scan/walk.rs", "fs::read_link("),
];

/// What opens, makes, removes or looks at a path, through whatever links lie on it.
fn opens_a_path(line: &str) -> bool {
    const CALLS: [&str; 12] = [
        "read",
        "write",
        "copy",
        "rename",
        "remove_",
        "create_dir",
        "metadata",
        "symlink_metadata",
        "canonicalize",
        "hard_link",
        "set_permissions",
        "exists",
    ];
    let calls = line.match_indices("fs::").any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + 4..]);
        let is_std = before.ends_with("std::")
            || !before.ends_with([':', '_']) && !before.ends_with(char::is_alphanumeric);
        let is_call = after.contains(['(', ')']) && !line.trim_start().starts_with("use ");
        is_std && is_call && CALLS.iter().any(|call| after.starts_with(call))
    });
    let opens = ["File::open(", "File::create", "File::options(", "OpenOptions::new("];
    calls || opens.iter().any(|open| line.contains(open))
}

#[test]
fn paths_of_the_host_are_opened_by_host_dir() {
    let mut broken = Vec::new();
    for source in sources() {
        let path = source.path.to_str().unwrap();
        let is_low = ["sys", "store"].contains(&source.folder.as_str());
        let is_known = |line: &str| {
            is_low
                || OPENS_PATHS.iter().any(|(file, _)| *file == path)
                || LOOKS_AT_PATHS.iter().any(|(file, part)| *file == path && line.contains(part))
        };
        for (n, line) in &source.lines {
            let helpers =
                ["files::replace(", "files::lstat(", "files::open_read(", ".is_file()", ".is_dir()"];
            let of_host = ["host.path(", "self.path(absolute", "state_path()", ".run_dir().join("];
            let opens = opens_a_path(line);
            if opens && !is_known(line) {
                broken.push(format!("{path}:{n} opens a path: use Host::dir, HostDir or Host::metadata"));
            }
            let is_joined = of_host.iter().any(|of| line.contains(of));
            if is_joined && (opens || helpers.iter().any(|helper| line.contains(helper))) {
                broken.push(format!(
                    "{path}:{n} follows links of another system: use Host::dir or Host::metadata"
                ));
            }
        }
    }
    for (file, _) in OPENS_PATHS {
        let is_needed = sources().iter().any(|source| {
            source.path == Path::new(file) && source.lines.iter().any(|(_, line)| opens_a_path(line))
        });
        assert!(is_needed, "{file} opens no path any more: take it off the list");
    }
    report(&broken);
}
