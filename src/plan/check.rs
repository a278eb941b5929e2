//! Findings of a check, as pure functions of what was seen. Not here: looking (`task::check`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::catalog::own::{Care, SERVICE, TIMER};
use crate::model::index::Name;
use crate::model::problem::{Outcome, Problem, Severity};
use crate::model::report::Rights;

/// The state of a thing that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    Ok,
    /// Worth knowing, nothing to do.
    Notice,
    /// The admin should look at it.
    Warning,
    /// The admin must repair it.
    Problem,
}

impl fmt::Display for CheckState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
        })
    }
}

/// The part of the host that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    Configuration,
    Rights,
    Keys,
    Package,
    Hooks,
    Timer,
    Predecessor,
    Restores,
    Stores,
    Channels,
    Space,
    Clock,
    Cluster,
    Coverage,
    Sockets,
    Firewall,
    Processes,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Configuration => "configuration",
            Self::Rights => "rights",
            Self::Keys => "keys",
            Self::Package => "package",
            Self::Hooks => "hooks",
            Self::Timer => "timer",
            Self::Predecessor => "legacy",
            Self::Restores => "restores",
            Self::Stores => "stores",
            Self::Channels => "channels",
            Self::Space => "space",
            Self::Clock => "clock",
            Self::Cluster => "cluster",
            Self::Coverage => "coverage",
            Self::Sockets => "sockets",
            Self::Firewall => "firewall",
            Self::Processes => "processes",
        })
    }
}

/// One thing, how it stands, and what to do.
#[derive(Debug, Clone, Serialize)]
pub struct CheckFinding {
    pub area: Area,
    pub state: CheckState,
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The repair that `--fix` makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

/// Another mode for a file of ours. A file of another owner is never handed to root: it may hold anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// Absolute in the host.
    pub path: Name,
    pub before: Rights,
    pub after: Rights,
    pub done: bool,
}

impl CheckFinding {
    pub fn new(area: Area, state: CheckState, what: impl Into<String>) -> Self {
        Self { area, state, what: what.into(), hint: None, fix: None }
    }

    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Returns the finding as a problem of a report. None: there is nothing to act on.
    pub fn problem(&self) -> Option<Problem> {
        let severity = match self.state {
            CheckState::Ok | CheckState::Notice => return None,
            CheckState::Warning => Severity::Warning,
            CheckState::Problem => Severity::Error,
        };
        Some(Problem { severity, what: self.what.clone(), hint: self.hint.clone() })
    }
}

/// Builds a finding from a problem that others found.
pub fn of_problem(area: Area, problem: Problem) -> CheckFinding {
    let state = match problem.severity {
        Severity::Notice => CheckState::Notice,
        Severity::Warning => CheckState::Warning,
        Severity::Error => CheckState::Problem,
    };
    CheckFinding { hint: problem.hint, ..CheckFinding::new(area, state, problem.what) }
}

pub fn outcome(findings: &[CheckFinding]) -> Outcome {
    match findings.iter().map(|finding| finding.state).max() {
        Some(CheckState::Problem) => Outcome::Failed,
        Some(CheckState::Warning) => Outcome::Warned,
        _ => Outcome::Ok,
    }
}

/// Reports whether a file has the right owner and mode. `me` may own it too, when that is not root. Only a mode is
/// repaired: what another user made does not become root's unseen.
pub fn rights(path: &Path, care: Care, seen: Rights, me: u32) -> CheckFinding {
    const WRITE: u32 = 0o022;
    const ALL: u32 = 0o077;

    let shown = path.display();
    let foreign = seen.uid != 0 && seen.uid != me;
    let open = seen.mode & if care == Care::Private { ALL } else { WRITE };
    if !foreign && open == 0 {
        return CheckFinding::new(Area::Rights, CheckState::Ok, format!("{shown}: {seen}"));
    }

    let finding =
        |why: &str| CheckFinding::new(Area::Rights, CheckState::Problem, format!("{shown}: {seen}: {why}"));
    if foreign {
        let fix = format!("check what its owner put there; then `chown root: {shown}`, or remove it");
        return finding(&format!("belongs to user {}", seen.uid)).hint(fix);
    }
    let can = if seen.mode & WRITE & open != 0 { "change" } else { "read" };
    let after = Rights { mode: seen.mode & !open & 0o777, ..seen };
    let finding = finding(&format!("users other than root can {can} it"));
    let finding = finding.hint(format!("`pbx-config check --fix` sets it to {after}"));
    CheckFinding { fix: Some(Fix { path: Name::from(path), before: seen, after, done: false }), ..finding }
}

/// Room for the next run. `need` in bytes.
pub fn room(place: &str, bytes: u64, files: Option<u64>, need: u64) -> CheckFinding {
    /// Enough for some directories, partial files and the snapshot itself.
    const FILES: u64 = 100;

    let mib = |bytes: u64| bytes >> 20;
    if bytes < need {
        let what =
            format!("{place}: {} MiB are free, the next snapshot may need {}", mib(bytes), mib(need).max(1));
        return CheckFinding::new(Area::Space, CheckState::Problem, what)
            .hint("free some space there, or keep fewer snapshots");
    }

    match files {
        Some(files) if files < FILES => {
            let what = format!("{place}: only {files} more files can be created there");
            CheckFinding::new(Area::Space, CheckState::Problem, what)
                .hint("see `df -i`; remove files, their size does not matter")
        }
        _ => CheckFinding::new(Area::Space, CheckState::Ok, format!("{place}: {} MiB free", mib(bytes))),
    }
}

/// `KEY=VALUE` lines of `systemctl show`, one block a unit.
pub fn units(text: &str) -> Vec<BTreeMap<&str, &str>> {
    let blocks = text.split("\n\n");
    blocks.map(|block| block.lines().filter_map(|line| line.split_once('=')).collect()).collect()
}

/// The timer and how its last run ended, from [`units`].
pub fn timer(units: &[BTreeMap<&str, &str>]) -> Vec<CheckFinding> {
    let of = |id: &str, key: &str| {
        let unit = units.iter().find(|unit| unit.get("Id") == Some(&id));
        unit.and_then(|unit| unit.get(key)).copied().unwrap_or_default()
    };
    let finding = |state, what: String| CheckFinding::new(Area::Timer, state, what);
    let mut found = Vec::new();
    if of(TIMER, "LoadState") != "loaded" {
        let what = format!("{TIMER} is not known to systemd: no backup starts by itself");
        return vec![
            finding(CheckState::Problem, what).hint("reinstall the package, or `systemctl daemon-reload`"),
        ];
    }

    let (enabled, active) = (of(TIMER, "UnitFileState"), of(TIMER, "ActiveState"));
    if enabled != "enabled" || active != "active" {
        let what = format!("{TIMER} is {enabled} and {active}: no backup starts by itself");
        found.push(finding(CheckState::Problem, what).hint(format!("systemctl enable --now {TIMER}")));
    } else {
        let next = of(TIMER, "NextElapseUSecRealtime");
        found.push(finding(
            CheckState::Ok,
            format!("{TIMER}: enabled, next {}", if next.is_empty() { "-" } else { next }),
        ));
    }

    match of(SERVICE, "Result") {
        "" | "success" => {}
        result => {
            let what = format!("its last run failed: {result}, status {}", of(SERVICE, "ExecMainStatus"));
            found.push(finding(CheckState::Problem, what).hint(format!("journalctl -u {SERVICE} -n 50")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mode: u32, uid: u32) -> Rights {
        Rights { mode, uid, gid: 33 }
    }

    #[test]
    fn a_private_file_is_roots_alone_and_a_public_one_only_changed_by_root() {
        let after =
            |care, mode, uid| rights(Path::new("/x"), care, seen(mode, uid), 0).fix.map(|fix| fix.after);
        assert_eq!(after(Care::Private, 0o600, 0), None);
        assert_eq!(after(Care::Public, 0o644, 0), None);
        assert_eq!(after(Care::Private, 0o640, 0), Some(seen(0o600, 0)));
        assert_eq!(after(Care::Public, 0o777, 0), Some(seen(0o755, 0)));
        assert_eq!(after(Care::Public, 0o1777, 0), Some(seen(0o755, 0)));
        assert_eq!(after(Care::Public, 0o4777, 1000), None);
        assert_eq!(rights(Path::new("/x"), Care::Public, seen(0o755, 1000), 0).state, CheckState::Problem);
        assert_eq!(rights(Path::new("/x"), Care::Private, seen(0o600, 1000), 1000).state, CheckState::Ok);
    }

    #[test]
    fn the_last_run_and_the_timer_are_told_apart() {
        let text = "Id=proxmox-backup-extra.timer\nLoadState=loaded\nUnitFileState=enabled\nActiveState=active\n\
                    NextElapseUSecRealtime=Wed 2026-11-25 01:12:00 UTC\n\n\
                    Id=proxmox-backup-extra.service\nResult=exit-code\nExecMainStatus=1\n";
        let found = timer(&units(text));
        assert_eq!(
            found.iter().map(|one| one.state).collect::<Vec<_>>(),
            [CheckState::Ok, CheckState::Problem]
        );
        let off = text.replace("=enabled", "=disabled").replace("exit-code", "success");
        assert_eq!(timer(&units(&off)).len(), 1);
        assert_eq!(timer(&units(&off))[0].state, CheckState::Problem);
        assert!(timer(&units(""))[0].what.contains("not known"));
    }

    #[test]
    fn room_is_reckoned_in_bytes_and_in_files() {
        assert_eq!(room("/x", 10 << 20, None, 9 << 20).state, CheckState::Ok);
        assert_eq!(room("/x", 8 << 20, None, 9 << 20).state, CheckState::Problem);
        assert!(room("/x", 10 << 20, Some(3), 0).what.contains("only 3"));
    }
}
