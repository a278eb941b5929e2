//! Checks of the host itself: keys on it, hooks, the timer, the clock, the cluster file system, room in /var.

use std::path::Path;

use std::time::Duration;

use super::own;
use crate::catalog::own::{IDENTITY_PLACES, SERVICE, TIMER};
use crate::model::facts::{PmxcfsState, Product};
use crate::plan::check::{self, Area, CheckFinding, CheckState, of_problem};
use crate::sys::fs::free_space;
use crate::sys::host::{Host, STATE_DIR};
use crate::sys::pmxcfs;
use crate::sys::process::exec::{Cmd, ToolStatus};
use crate::task::runs::records;
use crate::task::setup::hook::{self, HookSite};
use crate::task::setup::migrate;

/// systemd answers at once or not at all.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(5);
/// A snapshot is written here before it goes to its stores: when there is no last one, and as a multiple of it.
const FIRST_BYTES: u64 = 16 << 20;
const MARGIN: u64 = 3;
const UNIT_PROPERTIES: &str =
    "--property=Id,LoadState,ActiveState,UnitFileState,Result,ExecMainStatus,NextElapseUSecRealtime";

/// All that needs no configuration of ours.
pub fn host(host: &Host) -> Vec<CheckFinding> {
    let mut findings = own::package(host);
    let identities = own::identities(host, IDENTITY_PLACES);
    if identities.is_empty() {
        findings.push(CheckFinding::new(
            Area::Keys,
            CheckState::Ok,
            "no private age identity was found on this host",
        ));
    }

    findings.extend(identities);
    findings.extend(hooks(host));
    findings.extend(predecessor(host));
    findings.extend(var_space(host));

    // What follows is asked of a system that runs.
    if host.exec.is_of_host() {
        findings.extend(timer(host));
        findings.extend(cluster(host));
    }

    if host.is_live() {
        findings.extend(clock());
    }
    findings
}

/// Both side by side do each other no harm, but whoever has moved wants one of them.
fn predecessor(host: &Host) -> Vec<CheckFinding> {
    let finding = |start: migrate::Start| {
        let what = format!("the legacy program is still active: {}: {}", start.place, start.what);
        CheckFinding::new(Area::Predecessor, CheckState::Notice, what)
            .hint(format!("when everything is migrated (`pbx-config migrate`): `{}`", start.retire))
    };
    migrate::starts(host.root(), host.is_live()).into_iter().map(finding).collect()
}

fn hooks(host: &Host) -> Vec<CheckFinding> {
    let mut findings = Vec::new();
    let finding = |state, what: String| CheckFinding::new(Area::Hooks, state, what);

    for place in HookSite::ALL {
        let name = place.name();
        // Without vzdump there is nothing to hook into.
        if matches!(place, HookSite::Vzdump) && !host.facts.has(Product::Pve) {
            continue;
        }
        let state = match hook::status(host, place) {
            Ok(state) => state,
            Err(error) => {
                let failed = super::failed(Area::Hooks, &error);
                let what = format!("{name}: {}", failed.what);
                let hint = failed.hint.unwrap_or_else(|| format!("see `pbx-config hook status {name}`"));
                findings.push(finding(CheckState::Warning, what).hint(hint));
                continue;
            }
        };
        findings.push(if state.enabled {
            finding(CheckState::Ok, format!("{name}: enabled in {}", state.file))
        } else {
            finding(CheckState::Notice, format!("{name}: not enabled"))
                .hint(format!("`pbx-config hook enable {name}`"))
        });
        for job in state.bypassed_by.iter().filter(|_| state.enabled) {
            let what = format!("{name}: job {} runs {} instead of the hook", job.id, job.script);
            findings.push(
                finding(CheckState::Warning, what)
                    .hint("call the hook from that script, or remove the script from the job"),
            );
        }
        findings.extend(state.problems.into_iter().map(|problem| of_problem(Area::Hooks, problem)));
    }
    findings
}

fn timer(host: &Host) -> Vec<CheckFinding> {
    let cmd = Cmd::new(["systemctl", "show", UNIT_PROPERTIES, TIMER, SERVICE], SYSTEMCTL_LIMIT);
    let finding = |state, what: &str| {
        let finding = CheckFinding::new(Area::Timer, state, what);
        vec![finding.hint("see `systemctl list-timers`; without systemd use cron")]
    };

    match host.exec.run(&cmd) {
        Ok(Some(said)) if said.status == ToolStatus::Exit(0) => {
            check::timer(&check::units(&String::from_utf8_lossy(&said.stdout)))
        }
        Ok(None) => finding(CheckState::Notice, "the timer cannot be checked: there is no systemctl"),
        Ok(Some(said)) => {
            let why = String::from_utf8_lossy(&said.stderr);
            let why = why.lines().next().unwrap_or_default();
            finding(
                CheckState::Warning,
                &format!("the timer cannot be checked: systemctl show: {}: {why}", said.status),
            )
        }
        Err(error) => finding(CheckState::Warning, &format!("systemctl show: {error:#}")),
    }
}

fn cluster(host: &Host) -> Vec<CheckFinding> {
    if !host.facts.has(Product::Pve) {
        return Vec::new();
    }

    let state = pmxcfs::state(host);
    let (weight, hint) = match state {
        PmxcfsState::Live { quorate: true } => (CheckState::Ok, ""),
        PmxcfsState::Live { quorate: false } => {
            (CheckState::Warning, "`pvecm status` tells which nodes are missing")
        }
        PmxcfsState::NotMounted => (CheckState::Problem, "see `systemctl status pve-cluster`"),
        PmxcfsState::Dead => (CheckState::Problem, "`systemctl restart pve-cluster`"),
        PmxcfsState::Frozen => (CheckState::Problem, "see `journalctl -u pve-cluster`"),
    };
    let finding = CheckFinding::new(Area::Cluster, weight, state.to_string());
    vec![if hint.is_empty() { finding } else { finding.hint(hint) }]
}

fn clock() -> Vec<CheckFinding> {
    vec![match free_space::clock_is_synchronised() {
        Some(true) => CheckFinding::new(Area::Clock, CheckState::Ok, "the clock is synchronized"),
        Some(false) => CheckFinding::new(Area::Clock, CheckState::Warning, "the clock is not synchronized")
            .hint("see `timedatectl` and `systemctl status chrony`; snapshots are named and kept by time"),
        None => CheckFinding::new(Area::Clock, CheckState::Notice, "the state of the clock cannot be read"),
    }]
}

/// Checks the room in the directory where a snapshot is written before it goes to its stores.
pub fn var_space(host: &Host) -> Vec<CheckFinding> {
    let dir = host.state_path();
    let there = Path::new(STATE_DIR).ancestors().find_map(|dir| host.dir(dir).ok());
    let found = there.and_then(|dir| free_space::now(&dir.here()).ok());
    let last = records::newest_size(host);
    let need = last.map_or(FIRST_BYTES, |size| size.saturating_mul(MARGIN));
    let room = found.map(|space| check::room(&dir.display().to_string(), space.bytes, space.files, need));
    room.into_iter().collect()
}
