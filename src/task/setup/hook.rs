//! Hooks of others that start a backup: the end of a vzdump job, and packages about to change. What happens here
//! never fails the caller.

use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::catalog::hooks::{APT_CONF, APT_HOOK, JOB_END, JOB_KIND, JOBS, SERVICE, VZDUMP_CONF, VZDUMP_HOOK};
use crate::model::facts::Product;
use crate::model::problem::{Fault, Problem};
use crate::model::section;
use crate::plan::vzdump_conf::{self, HookLine, VzdumpChange};
use crate::sys::fs::files;
use crate::sys::host::Host;
use crate::sys::pmxcfs;
use crate::sys::process::exec::{self, Cmd, ToolStatus};

const CONF_MAX_BYTES: u64 = 1 << 20;
/// The time limit of `systemctl start --no-block`: it only asks.
const START_LIMIT: Duration = Duration::from_secs(5);
/// An upgrade waits no longer for us.
const APT_LIMIT: Duration = Duration::from_secs(120);
/// Written by nobody else; its age says when the last job of this boot started a backup.
const STAMP: &str = "vzdump-hook.stamp";
/// The size limit of apt's list of packages; more is not needed for a label.
const APT_LIST_MAX_BYTES: u64 = 1 << 20;
const CONF_MODE: u32 = 0o644;

/// The places that a hook can be put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HookSite {
    Vzdump,
    Apt,
}

impl HookSite {
    pub const ALL: [Self; 2] = [Self::Vzdump, Self::Apt];

    pub fn name(self) -> &'static str {
        match self {
            Self::Vzdump => "vzdump",
            Self::Apt => "apt",
        }
    }
}

/// The state of a hook.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HookState {
    pub hook: HookSite,
    pub file: &'static str,
    pub enabled: bool,
    /// Somebody else's script: the one that ours hands on to, or the one that runs instead of it.
    pub script: Option<String>,
    /// Backup jobs with a script of their own, which run without ours.
    pub bypassed_by: Vec<Job>,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
pub struct Job {
    pub id: String,
    pub script: String,
}

pub fn status(host: &Host, place: HookSite) -> Result<HookState> {
    match place {
        HookSite::Vzdump => vzdump_status(host),
        HookSite::Apt => {
            let there = read(host, APT_CONF)?;
            let mut problems = Vec::new();
            if there.as_deref().is_some_and(|text| text != APT_HOOK.as_bytes()) {
                problems.push(Problem::warning(format!("{APT_CONF}: is not as this version writes it")).hint(
                    "if it was not changed on purpose: pbx-config hook disable apt; pbx-config hook enable apt",
                ));
            }
            let (file, script) = (APT_CONF, None);
            Ok(HookState {
                hook: place,
                file,
                enabled: there.is_some(),
                script,
                bypassed_by: Vec::new(),
                problems,
            })
        }
    }
}

fn vzdump_status(host: &Host) -> Result<HookState> {
    let hook = vzdump_conf::hook(&read(host, VZDUMP_CONF)?.unwrap_or_default(), VZDUMP_HOOK);
    let mut problems = Vec::new();
    let (enabled, script) = match hook {
        HookLine::None => (false, None),
        HookLine::Other(path) => (false, Some(path)),
        HookLine::Ours { chained } => (true, chained),
    };
    if enabled && let Err(why) = runnable(host, VZDUMP_HOOK) {
        let what = format!("{VZDUMP_HOOK} {why}: vzdump fails every job until it is back");
        problems
            .push(Problem::error(what).hint("reinstall the package, or `pbx-config hook disable vzdump`"));
    }

    let script = script.map(|path| String::from_utf8_lossy(&path).into_owned());
    if let (true, Some(script)) = (enabled, &script)
        && let Err(why) = runnable(host, script)
    {
        let what = format!("{script} {why}: it was the script of vzdump before, and is skipped now");
        problems.push(Problem::warning(what).hint("put it back, or disable and enable the hook"));
    }

    let bypassed_by = jobs_with_scripts(host).unwrap_or_else(|error| {
        problems.push(Problem::notice(format!("{error:#}; jobs with their own script are not known")));
        Vec::new()
    });
    Ok(HookState { hook: HookSite::Vzdump, file: VZDUMP_CONF, enabled, script, bypassed_by, problems })
}

/// A job's own script goes before the node's.
fn jobs_with_scripts(host: &Host) -> Result<Vec<Job>> {
    let found = pmxcfs::files(host, &[JOBS])?.into_iter().next().flatten().unwrap_or_default();
    let sections = section::parse(JOBS, &String::from_utf8_lossy(&found))?;
    let jobs = sections.iter().filter(|section| section.kind == JOB_KIND);
    let with = jobs.filter_map(|job| {
        let script = job.get("script")?.to_owned();
        Some(Job { id: job.id.clone(), script })
    });
    Ok(with.filter(|job| job.script != VZDUMP_HOOK).collect())
}

/// True when something was changed.
/// Errors: `Usage` when it cannot be meant here; the file system's own.
pub fn enable(host: &Host, place: HookSite) -> Result<bool> {
    match place {
        HookSite::Vzdump => {
            let text = read(host, VZDUMP_CONF)?;
            if !host.facts.has(Product::Pve) {
                let fault = Fault::usage("vzdump is not on this host: it is not Proxmox VE");
                return Err(fault.hint("the timer starts a backup every day").into());
            }
            if let Err(why) = runnable(host, VZDUMP_HOOK) {
                let fault = Fault::failed(format!("{VZDUMP_HOOK} {why}; every job would fail"));
                return Err(fault.hint("reinstall the package").into());
            }
            apply(host, VZDUMP_CONF, vzdump_conf::enable(text.as_deref(), VZDUMP_HOOK))
        }
        HookSite::Apt => match read(host, APT_CONF)? {
            Some(text) if text == APT_HOOK.as_bytes() => Ok(false),
            Some(_) => {
                let fault = Fault::usage(format!("{APT_CONF}: exists, and is not as this version writes it"));
                Err(fault.hint("check it; `pbx-config hook disable apt` removes it").into())
            }
            None => apply(host, APT_CONF, VzdumpChange::Write(APT_HOOK.into())),
        },
    }
}

/// True when something was changed.
pub fn disable(host: &Host, place: HookSite) -> Result<bool> {
    let change = match place {
        HookSite::Vzdump => match read(host, VZDUMP_CONF)? {
            Some(text) => vzdump_conf::disable(&text, VZDUMP_HOOK),
            None => VzdumpChange::Nothing,
        },
        HookSite::Apt if read(host, APT_CONF)?.is_some() => VzdumpChange::Remove,
        HookSite::Apt => VzdumpChange::Nothing,
    };
    let file = match place {
        HookSite::Vzdump => VZDUMP_CONF,
        HookSite::Apt => APT_CONF,
    };
    apply(host, file, change)
}

fn apply(host: &Host, file: &str, change: VzdumpChange) -> Result<bool> {
    match change {
        VzdumpChange::Nothing => return Ok(false),
        VzdumpChange::Write(text) => {
            let mode = host.metadata(file).map_or(CONF_MODE, |meta| meta.permissions().mode() & 0o7777);
            host.replace(file, mode, &text)?;
        }
        VzdumpChange::Remove => host.remove(file).with_context(|| format!("cannot remove {file}"))?,
    }
    Ok(true)
}

fn read(host: &Host, path: &str) -> Result<Option<Vec<u8>>> {
    match files::read_small(host.root(), path, CONF_MAX_BYTES) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}

fn runnable(host: &Host, path: impl AsRef<Path>) -> Result<(), &'static str> {
    match host.metadata(path) {
        Err(_) => Err("is not there"),
        Ok(meta) if !meta.is_file() => Err("is not a file"),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => Err("is not executable"),
        Ok(_) => Ok(()),
    }
}

/// The result of a phase of vzdump: lines for its task log, and the script that was there before us.
#[derive(Debug, Default)]
pub struct VzdumpPhase {
    pub lines: Vec<String>,
    pub chained: Option<PathBuf>,
}

/// `debounce`: jobs that end within this time of the last start make no further backup.
pub fn vzdump_phase(host: &Host, phase: &str, debounce: Duration) -> VzdumpPhase {
    let mut out = VzdumpPhase::default();
    if !host.exec.is_of_host() {
        out.lines.push("this system is only mounted here: no hook of it runs".to_owned());
        return out;
    }
    if phase == JOB_END {
        match start_backup(host, debounce) {
            Ok(None) => {}
            Ok(Some(line)) => out.lines.push(line),
            Err(error) => out.lines.push(format!("no backup of this node's configuration: {error:#}")),
        }
    }

    match read(host, VZDUMP_CONF) {
        Ok(text) => {
            let hook = vzdump_conf::hook(&text.unwrap_or_default(), VZDUMP_HOOK);
            if let HookLine::Ours { chained: Some(path) } = hook {
                let path = Path::new(std::ffi::OsStr::from_bytes(&path)).to_owned();
                match runnable(host, &path) {
                    Ok(()) => out.chained = Some(host.path(&path)),
                    Err(why) => out.lines.push(format!("{} {why}; it is skipped", path.display())),
                }
            }
        }
        Err(error) => out.lines.push(format!("{error:#}; the previous script is not known")),
    }
    out
}

/// None: a job before started one.
fn start_backup(host: &Host, debounce: Duration) -> Result<Option<String>> {
    let stamp = host.make_run_dir().and_then(|dir| dir.lstat(STAMP)).and_then(|meta| meta.modified());
    let age = stamp.ok().and_then(|at| at.elapsed().ok());
    if age.is_some_and(|age| age < debounce) {
        return Ok(None);
    }
    let argv = ["systemctl", "start", "--no-block", SERVICE].map(str::to_owned).to_vec();
    let said = host
        .exec
        .run(&Cmd::new(argv, START_LIMIT))?
        .context("it cannot be started: there is no systemctl")?;
    if said.status != ToolStatus::Exit(0) {
        let why = String::from_utf8_lossy(&said.stderr);
        anyhow::bail!("systemctl start {SERVICE}: {} {}", said.status, why.trim());
    }
    // A stamp that cannot be written costs one backup more.
    let _ = host.make_run_dir().map(|dir| dir.replace(STAMP, 0o600, b""));
    Ok(Some(format!("backup of this node's configuration started ({SERVICE})")))
}

/// A label from what apt tells on standard input (hook protocol 3).
pub fn packages_note(packages: &mut dyn Read) -> String {
    let mut list = Vec::new();
    let _ = packages.take(APT_LIST_MAX_BYTES).read_to_end(&mut list);
    // Read to its end: apt takes a broken pipe for a failed hook.
    let _ = std::io::copy(packages, &mut std::io::sink());
    apt_note(&String::from_utf8_lossy(&list))
}

/// Makes a snapshot on the primary store before packages change.
/// Returns a line for the terminal when there is something to say.
pub fn before_packages(host: &Host, store: &str, note: &str) -> Option<String> {
    let run = || -> Result<()> {
        let program = std::env::current_exe()?;
        let root = host.root().to_str().context("a root whose name is UTF-8")?;
        // The primary store alone, and no state: an upgrade must not wait for a remote or for slow tools.
        let words = ["--root", root, "backup", "--trigger", "apt", "--note", note];
        let args = [&words[..], &["--skip", "state", "--store", store, "--quiet"]].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let cmd = Cmd::new(Vec::<String>::new(), APT_LIMIT);
        let said = exec::run_at(&program, &args, &cmd)?;
        match said.status {
            ToolStatus::Exit(0 | 3) => Ok(()),
            ToolStatus::TimedOut => anyhow::bail!("it took longer than {} s", APT_LIMIT.as_secs()),
            status => {
                let text = String::from_utf8_lossy(&said.stderr);
                anyhow::bail!("{}", text.lines().next().map_or_else(|| status.to_string(), str::to_owned))
            }
        }
    };
    let error = run().err()?;

    Some(format!("no backup of the configuration before this change: {error:#}"))
}

/// "before apt: pve-manager 9.1.1 -> 9.1.2, and 14 more packages"
fn apt_note(list: &str) -> String {
    // Protocol 3: name, old version, its architecture and multi-arch, direction, new version, …, action.
    let packages = list.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, old, _, _, direction, new, .., action] = words[..] else { return None };
        if !["<", ">", "="].contains(&direction) || action == "**CONFIGURE**" {
            return None;
        }
        Some(match (old, new) {
            ("-", new) => format!("{name} {new} new"),
            (_, "-") => format!("{name} removed"),
            (old, new) => format!("{name} {old} -> {new}"),
        })
    });
    let all: Vec<String> = packages.collect();

    match &all[..] {
        [] => "before apt".to_owned(),
        [one] => format!("before apt: {one}"),
        [first, rest @ ..] => format!("before apt: {first}, and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_names_what_changes() {
        let list = "VERSION 3\nAPT::Architecture=amd64\n\n\
            pve-manager 9.1.1 all none < 9.1.2 all none /var/cache/apt/archives/x.deb\n\
            zstd - - none < 1.5.4 amd64 none /var/cache/apt/archives/y.deb\n\
            nano 7.2 amd64 none > - - none **REMOVE**\n\
            zstd - - none < 1.5.4 amd64 none **CONFIGURE**\n";
        assert_eq!(apt_note(list), "before apt: pve-manager 9.1.1 -> 9.1.2, and 2 more");
        assert_eq!(
            apt_note("VERSION 3\n\nnano 7.2 amd64 none > - - none **REMOVE**\n"),
            "before apt: nano removed"
        );
        assert_eq!(apt_note("\u{0}junk\n\n< > ="), "before apt");
    }
}
