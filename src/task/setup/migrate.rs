//! `migrate`: finds the legacy configuration, turns it into ours, and shows what still starts the legacy program.
//! Nothing of the legacy installation is changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::configure::Files;
use crate::catalog::legacy::{
    CRON_DIR, CRONTAB, ENV_FILES, INSTALL_DIRS, ROOT_CRONTAB, SALT_FILE, UNIT_DIR, is_program, named_in,
};
use crate::config::legacy::env::EnvFile;
use crate::config::legacy::{self, Migration, RejectReason, SiblingFiles};
use crate::model::problem::Fault;
use crate::model::section::{Section, to_text};
use crate::sys::fs::files;
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;
use crate::sys::process::processes;

/// Hundreds of times what the template has.
const MAX_BYTES: u64 = 4 << 20;
/// A unit file or a crontab is never larger.
const SMALL_MAX_BYTES: u64 = 1 << 20;

pub struct MigrateRequest {
    /// None: looked for in its usual places.
    pub file: Option<PathBuf>,
    /// The system that the old tool is installed on.
    pub root: PathBuf,
    /// Variables that override the file; None leaves the environment out.
    pub process: Option<BTreeMap<String, String>>,
}

/// The files that would be written, and why.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Migrated {
    pub file: String,
    pub base_dir: String,
    /// Other files of the kind that were not read.
    pub others: Vec<String>,
    #[serde(flatten)]
    pub migration: Migration,
    pub starts: Vec<Start>,
}

/// One thing that starts the legacy program, or is the running program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Start {
    /// `FILE:LINE`, a unit, or a process.
    pub place: String,
    pub what: String,
    /// The command that ends it.
    pub retire: String,
}

/// Reads everything that is needed. Errors: `NotFound` with the places that were looked at, `Usage`.
pub fn run(
    host: &Host,
    request: MigrateRequest,
    accepts: &dyn Fn(&Section) -> Result<(), RejectReason>,
) -> Result<Migrated> {
    let (path, others, bytes) = if let Some(path) = request.file {
        let bytes = read(&path)?;
        (path, Vec::new(), bytes)
    } else {
        find(&request.root)?
    };
    let name = path.display().to_string();
    let base_dir = base_dir(&request.root, &path);
    let env = EnvFile::parse(&name, &bytes, &base_dir, request.process)?;
    let beside = beside(&request.root, &env);
    let migration = legacy::migrate(&env, &beside, accepts);
    let starts = starts(&request.root, host.is_live() && request.root == Path::new("/"));
    let others = others.iter().map(|path| path.display().to_string()).collect();
    Ok(Migrated { file: name, base_dir, others, migration, starts })
}

/// Reads the first configuration below the root, and lists the other ones.
fn find(root: &Path) -> Result<(PathBuf, Vec<PathBuf>, Vec<u8>)> {
    let places = INSTALL_DIRS.iter().flat_map(|dir| ENV_FILES.map(|file| format!("{dir}/{file}")));
    let places: Vec<PathBuf> = places.map(|place| root.join(place.trim_start_matches('/'))).collect();
    let is_file = |path: &&PathBuf| {
        let below = path.strip_prefix(root).unwrap_or(path);
        files::metadata(root, below).is_ok_and(|meta| meta.is_file())
    };
    let mut found = places.iter().filter(is_file).cloned();
    let Some(first) = found.next() else {
        let looked: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
        let fault = Fault::not_found("there is no backup.env of the legacy program");
        return Err(fault.hint(format!("name the file; looked for {}", looked.join(", "))).into());
    };
    let bytes = files::read_small(root, first.strip_prefix(root).unwrap_or(&first), MAX_BYTES);
    let bytes = bytes.with_context(|| Fault::usage(format!("cannot read {}", first.display())))?;
    Ok((first, found.collect(), bytes))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let (folder, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    files::read_small(&real, Path::new("/").join(name), MAX_BYTES).map_err(|error| {
        let shown = path.display();
        let fault = match error.kind() {
            ErrorKind::NotFound => Fault::not_found(format!("{shown}: no such file")),
            _ => Fault::usage(format!("cannot read {shown}")),
        };
        anyhow::Error::from(error).context(fault)
    })
}

/// The directory above `configs` or `env`, as the legacy program sees it; else where it is installed.
fn base_dir(root: &Path, file: &Path) -> String {
    let absolute = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let root_of = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let usual = ENV_FILES.iter().any(|usual| absolute.ends_with(usual));
    let above = absolute.ancestors().nth(2).filter(|_| usual);
    if let Some(below) = above.and_then(|above| above.strip_prefix(&root_of).ok()) {
        return Path::new("/").join(below).display().to_string();
    }
    let installed = INSTALL_DIRS.iter().find(|dir| root.join(dir.trim_start_matches('/')).is_dir());
    (*installed.unwrap_or(&INSTALL_DIRS[0])).to_owned()
}

/// The recipient file and the salt, which belong to the configuration.
fn beside(root: &Path, env: &EnvFile) -> SiblingFiles {
    let file = env.value(&[legacy::RECIPIENT_FILE], true, true).map(|value| value.text);
    let file = file.filter(|text| !text.is_empty());
    let file = file.unwrap_or_else(|| format!("{}/identity/age/recipient.txt", env.base_dir));
    let text = |path: &str| {
        files::read_small(root, path, MAX_BYTES).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let recipients = match text(&file) {
        Ok(text) => Some(Ok(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Err(format!("{file}: {error}"))),
    };
    let salt =
        Path::new(&file).parent().and_then(|folder| text(&folder.join(SALT_FILE).display().to_string()).ok());
    SiblingFiles { recipients, salt }
}

/// Finds what starts the legacy program on the system below `root`; `live` looks at running processes too.
pub fn starts(root: &Path, live: bool) -> Vec<Start> {
    let mut starts = Vec::new();
    let text = |path: &str| {
        // Not through a link: one of cron's leads into /etc/pve, which may hang.
        files::read_plain(root, Path::new(path), SMALL_MAX_BYTES)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let names = |dir: &str| -> Vec<String> {
        let names = HostDir::open(root, Path::new(dir)).and_then(|dir| dir.names());
        let names = names.unwrap_or_default().into_iter();
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        names
    };
    let mut crontabs = vec![CRONTAB.to_owned()];
    crontabs.extend(names(CRON_DIR).iter().map(|name| format!("{CRON_DIR}/{name}")));
    crontabs.push(ROOT_CRONTAB.to_owned());

    for path in crontabs {
        let Ok(text) = text(&path) else { continue };
        for (n, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with('#')) {
            let Some(word) = named_in(line) else { continue };
            let edit = format!("'\\|{word}|s|^|#|'");
            let retire = if path == ROOT_CRONTAB {
                format!("crontab -l | sed {edit} | crontab -")
            } else {
                format!("sed -i {edit} {path}")
            };
            starts.push(Start { place: format!("{path}:{n}"), what: line.trim().to_owned(), retire });
        }
    }

    for name in names(UNIT_DIR) {
        let Some((_, kind)) = name.rsplit_once('.') else { continue };
        if !["service", "timer"].contains(&kind) {
            continue;
        }
        let Ok(text) = text(&format!("{UNIT_DIR}/{name}")) else { continue };
        let command = text.lines().find(|line| line.starts_with("Exec") && named_in(line).is_some());
        let timer = kind == "timer" && is_program(name.trim_end_matches(".timer"));
        if let Some(what) = command.or(timer.then_some("its timer")) {
            let retire = format!("systemctl disable --now {name}");
            starts.push(Start { place: format!("{UNIT_DIR}/{name}"), what: what.to_owned(), retire });
        }
    }

    if live {
        starts.extend(running());
    }
    starts
}

fn running() -> Vec<Start> {
    let mut found = Vec::new();
    for pid in processes::pids(Path::new("/proc")) {
        let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
        let program = program.display().to_string();
        if is_program(program.trim_end_matches(" (deleted)")) {
            found.push(Start {
                place: format!("process {pid}"),
                what: program,
                retire: format!("kill {pid}"),
            });
        }
    }

    found
}

impl Migrated {
    /// Our two files.
    pub fn files(&self) -> Files {
        let sections = &self.migration.sections;
        let part = |private: bool| -> Vec<Section> {
            let of = |section: &Section| Section {
                entries: section.entries.iter().filter(|entry| entry.private == private).cloned().collect(),
                ..section.clone()
            };
            sections.iter().map(of).filter(|section| !private || !section.entries.is_empty()).collect()
        };
        let head =
            format!("# Made from {} by `pbx-config migrate`.\n\n", self.file.replace(char::is_control, " "));
        let secrets = part(true);
        Files {
            public: format!("{head}{}", to_text(&part(false))),
            secrets: (!secrets.is_empty()).then(|| format!("{head}{}", to_text(&secrets))),
        }
    }
}

/// True when something was lost that an admin has to look at.
pub fn has_problems(migrated: &Migrated) -> bool {
    use crate::config::legacy::OptionOutcome;
    let options = &migrated.migration.options;
    options
        .iter()
        .any(|one| matches!(one.outcome, OptionOutcome::Invalid { .. } | OptionOutcome::Unknown { .. }))
        || migrated.migration.remarks.iter().any(|remark| remark.lost)
}

/// Errors when the written text is not what the sections are: a value that cannot stand on one line.
pub fn check_text(files: &Files) -> Result<()> {
    for text in std::iter::once(&files.public).chain(&files.secrets) {
        crate::model::section::parse("the new configuration", text)
            .context("the values cannot be written")?;
    }
    Ok(())
}
