//! The rollback of an armed restore, done unless somebody who could log in again confirms it. It is armed on disk
//! before the first step that may cut a connection; a separate process waits beside it, and units of the package look
//! at every boot.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::deadline::{POLL, patiently};
use super::journal::{self, Journal, RestorePhase};
use super::pending_confirm::{self, HANG_GRACE, PROGRAM, PendingConfirm};
use super::probe::{self, Probe};
use super::{RestoreLock, audit_log, confirm, services, undo};
use crate::config::ApiConfig;
use crate::model::facts::Product;
use crate::model::index::Name;
use crate::model::problem::{Fault, FaultKind, Severity};
use crate::model::units::counted;
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;
use crate::sys::process::exec::{self, Cmd, ToolStatus};
use crate::sys::process::lock::Lock;
use crate::sys::process::session::{self, LoginSession};
use crate::task::restore;

const NOBODY: &str = "it was not confirmed";
/// Wait for another restore or undo when the time is up.
const LOCK_WAIT: Duration = Duration::from_secs(300);
/// Wait for a backup: one that hangs on the network that was cut must not keep it cut.
const BACKUP_WAIT: Duration = Duration::from_secs(15);
/// An undo that could not put back all is tried again so soon, then after twice that, and so on.
const AGAIN_FIRST: Duration = Duration::from_secs(15);
const AGAIN_MAX: Duration = Duration::from_secs(300);
const START_LIMIT: Duration = Duration::from_secs(20);
const ALIVE_LIMIT: Duration = Duration::from_secs(10);
const ALIVE_POLL: Duration = Duration::from_millis(10);
const PROGRAM_MODE: u32 = 0o700;
/// The number of rounds of probes in a row that must be good.
const GOOD_ROUNDS: u32 = 3;
const ROUND_EVERY: Duration = Duration::from_secs(2);
/// Probes that are not good so long after the last step will not be. Of a short time to confirm it is half: what cuts
/// a connection is undone before somebody has to wait for the end.
const PROBE_GRACE_MAX: Duration = Duration::from_secs(60);

/// The end of an armed restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Confirmed,
    Undone,
    /// Nothing is armed.
    Nothing,
}

/// Arms the rollback, also for the death of this process. The waiting process is started first, and has said that it
/// lives: without one nothing is armed. The time to confirm begins when all is done (`begin`).
/// Errors: nobody could be started to wait.
pub fn arm(host: &Host, id: &str, within: Duration, probes: &[Probe]) -> Result<PendingConfirm> {
    let at = session::uptime();
    let armed = PendingConfirm {
        id: id.to_owned(),
        boot: session::boot_id(),
        at,
        deadline: at + within.min(restore::ARMED_LIMIT + HANG_GRACE).as_secs_f64(),
        within: within.as_secs_f64(),
        probe_grace: PROBE_GRACE_MAX.min(within / 2).as_secs_f64(),
        session: LoginSession::current(),
        probes: probes.to_vec(),
    };
    pending_confirm::write(host, &armed)?;
    start_waiting(host, &armed).inspect_err(|_| drop(pending_confirm::disarm(host, id)))?;
    Ok(armed)
}

/// Begins the time of a resumed restore again, so that it is not taken for one that was cut short.
pub fn go_on(host: &Host, id: &str) -> Result<()> {
    let Some(armed) =
        pending_confirm::read(host).filter(|armed| armed.id == id && armed.boot == session::boot_id())
    else {
        return Ok(());
    };
    let at = session::uptime();
    pending_confirm::write(host, &PendingConfirm { at, deadline: at + (armed.deadline - armed.at), ..armed })
}

/// Begins the time to confirm: all is done and the services are settled, however long they took.
pub fn begin(host: &Host, armed: PendingConfirm) -> Result<PendingConfirm> {
    let armed = PendingConfirm { deadline: session::uptime() + armed.within, ..armed };
    pending_confirm::write(host, &armed)?;
    Ok(armed)
}

/// Properties of the systemd unit that waits: started before the restore goes on, and again however it ends; only
/// `confirm`, `undo` and a shutdown end the waiting.
const UNIT: [&str; 7] = [
    "--collect",
    "--quiet",
    "--property=Type=exec",
    "--property=Restart=on-failure",
    "--property=RestartSec=2s",
    "--property=OOMScoreAdjust=-1000",
    "--property=RefuseManualStop=yes",
];

/// Starts the waiting process, and waits until it lives. systemd keeps it when the session that applied goes; without
/// systemd a session of its own does. What is started is this very program, whatever lies at its path by now.
fn start_waiting(host: &Host, armed: &PendingConfirm) -> Result<()> {
    let own = exec::own_program().context("cannot open this program")?;
    let dir = journal::folder(host)?.dir(&armed.id)?;
    let mut args = Vec::new();
    if !host.is_live() {
        args.extend(["--root".to_owned(), host.root().display().to_string()]);
    }
    args.extend(["undo", "--armed", "--wait"].map(str::to_owned));
    // What a mounted system has in its file asks nobody.
    if !host.exec.is_of_host() {
        args.extend(armed.probes.iter().flat_map(|probe| ["--probe".to_owned(), probe.to_string()]));
    }

    match start_unit(host, &dir, &armed.id, &own, &args) {
        Ok(true) => return Ok(()),
        // No systemd.
        Ok(false) => {}
        Err(error) => log::warn!("systemd-run: {error:#}"),
    }
    let _ = dir.remove(PROGRAM);

    let started = exec::start_in_own_session(&own, &args)
        .map_err(Into::into)
        .and_then(|()| wait_alive(host, &armed.id));
    started.map_err(|error| {
        let message = format!("the automatic rollback could not be started: {error:#}");
        Fault::new(FaultKind::Failed, message).hint("use --skip for what may cut your connection").into()
    })
}

/// Starts it as a unit of systemd. False: there is no systemd.
fn start_unit(host: &Host, dir: &HostDir, id: &str, own: &File, args: &[String]) -> Result<bool> {
    if !host.exec.is_of_host() {
        return Ok(false);
    }
    let copy = dir.path().join(PROGRAM);
    // One that is resumed is armed again.
    let _ = dir.remove(PROGRAM);
    let mut file = dir.new_file(PROGRAM).with_context(|| copy.display().to_string())?;
    io::copy(&mut &*own, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(PROGRAM_MODE))?;
    drop(file);

    let named = [
        "systemd-run".to_owned(),
        format!("--unit=pbx-config-armed-{id}"),
        format!("--description=Undo the restore {id} unless it is confirmed"),
    ];
    let run = named.into_iter().chain(UNIT.map(str::to_owned)).chain([copy.display().to_string()]);
    let Some(output) = host.exec.run(&Cmd::new(run.chain(args.iter().cloned()), START_LIMIT))? else {
        return Ok(false);
    };
    if output.status != ToolStatus::Exit(0) {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    wait_alive(host, id).map(|()| true)
}

/// Returns the name of the lock that the process beside a restore holds: nothing is cut before it does.
fn waiting(id: &str) -> String {
    format!("waiting-{id}")
}

/// Errors: no process says within the limit that it lives and waits.
fn wait_alive(host: &Host, id: &str) -> Result<()> {
    let since = Instant::now();
    while !Lock::is_held(&host.run_dir(), &waiting(id)) {
        crate::sys::process::signals::check_stopped()?;
        ensure!(since.elapsed() < ALIVE_LIMIT, "it was started, and does not say that it lives");
        std::thread::sleep(ALIVE_POLL);
    }
    Ok(())
}

/// What the probes of an armed restore say.
enum Probed {
    Good,
    Failed(String),
    Undecided,
}

/// The rounds of probes so far.
#[derive(Default)]
struct ProbeRounds {
    /// Good ones in a row.
    good: u32,
    /// Uptime at which all was applied, as it was first seen.
    applied_at: Option<f64>,
    asked_at: Option<f64>,
}

impl ProbeRounds {
    /// Asks the probes when it is time for that: all is applied, and the last round is long enough ago.
    fn ask(&mut self, host: &Host, armed: &PendingConfirm, now: f64) -> Probed {
        let is_time = self.asked_at.is_none_or(|asked| now - asked >= ROUND_EVERY.as_secs_f64());
        let is_applied =
            || Journal::open(host, &armed.id).is_ok_and(|journal| journal.phase >= RestorePhase::Done);
        if armed.probes.is_empty() || !is_time || !is_applied() {
            return Probed::Undecided;
        }

        self.asked_at = Some(now);
        let since = *self.applied_at.get_or_insert(now);
        match probe::ask(host, &armed.probes) {
            Ok(()) => {
                self.good += 1;
                if self.good >= GOOD_ROUNDS { Probed::Good } else { Probed::Undecided }
            }
            Err(failed) => {
                self.good = 0;
                if now - since >= armed.probe_grace { Probed::Failed(failed) } else { Probed::Undecided }
            }
        }
    }
}

/// Waits beside an armed restore until it is confirmed, its time is up, or its probes decide: those of its file, or
/// `probes` for a system that is only mounted here. Errors: a signal ended the waiting; what is armed stays so, for
/// the next boot.
pub fn wait(host: &Host, apis: &[(Product, ApiConfig)], probes: &[Probe]) -> Result<Ended> {
    let read = || {
        let armed = pending_confirm::read(host)?;
        let probes = if host.exec.is_of_host() { armed.probes.clone() } else { probes.to_vec() };
        Some(PendingConfirm { probes, ..armed })
    };
    let Some(mut armed) = read() else { return Ok(Ended::Nothing) };
    // Where that cannot be said it waits all the same.
    let lives = Lock::acquire_named(&host.run_dir(), &waiting(&armed.id));
    let _lives = lives.inspect_err(|error| log::warn!("{}: {error:#}", armed.id));
    let mut rounds = ProbeRounds::default();
    let (mut again_at, mut again_after) = (f64::MIN, AGAIN_FIRST);

    // Probes speak once; from then on it is undone until it is.
    let mut why = None;
    loop {
        crate::sys::process::signals::check_stopped()?;
        match read() {
            Some(now) if now.id == armed.id => armed = now,
            _ => return ended(host, &armed.id),
        }
        let now = session::uptime();
        if armed.is_due() {
            why.get_or_insert_with(|| NOBODY.to_owned());
        }
        if let Some(because) = &why {
            if now >= again_at {
                match undo_now(host, apis, because) {
                    // It was still being applied.
                    Ok(Ended::Nothing) => {
                        why = None;
                        continue;
                    }
                    Ok(ended) => return Ok(ended),
                    Err(error) => log::error!("{error:#}"),
                }
                again_at = session::uptime() + again_after.as_secs_f64();
                again_after = AGAIN_MAX.min(again_after * 2);
            }
        } else {
            match rounds.ask(host, &armed, now) {
                Probed::Good => match confirm::confirm(host, &armed, "by its probes") {
                    Ok(_) => return Ok(Ended::Confirmed),
                    Err(error) => log::warn!("{error:#}"),
                },
                Probed::Failed(failed) => why = Some(format!("its probes failed: {failed}")),
                Probed::Undecided => {}
            }
        }
        std::thread::sleep(POLL);
    }
}

fn ended(host: &Host, id: &str) -> Result<Ended> {
    let phase = Journal::open(host, id)?.phase;
    Ok(if matches!(phase, RestorePhase::Undone | RestorePhase::Undoing) {
        Ended::Undone
    } else {
        Ended::Confirmed
    })
}

/// Watches for the admin who applied it: the waiting process ends it, and this one only when that one is gone.
/// Errors: it could not be undone; a signal ended the watching, and it is still armed.
pub fn watch(
    host: &Host,
    apis: &[(Product, ApiConfig)],
    armed: &PendingConfirm,
    say: &dyn Fn(&str),
) -> Result<Ended> {
    let id = &armed.id;

    loop {
        let Some(now) = pending_confirm::read(host).filter(|now| now.id == *id) else {
            return ended(host, id);
        };
        if let Err(stopped) = crate::sys::process::signals::check_stopped() {
            let message = format!("{stopped:#}; {id} is still armed, and is rolled back in {} s", now.left());
            let hint = format!(
                "`pbx-config confirm` in a new session keeps it, `pbx-config undo {id}` undoes it at once"
            );
            return Err(Fault::new(FaultKind::Failed, message).hint(hint).into());
        }
        if now.is_overdue() {
            return undo_due(host, apis);
        }
        say(&format!("waiting for `pbx-config confirm` in a new session: {} s", now.left()));
        std::thread::sleep(POLL);
    }
}

/// Undoes what is due, at a boot and from the waiting process. Nothing to do is not an error.
pub fn undo_due(host: &Host, apis: &[(Product, ApiConfig)]) -> Result<Ended> {
    match pending_confirm::read(host) {
        Some(armed) if armed.is_due() => undo_now(host, apis, NOBODY),
        _ => Ok(Ended::Nothing),
    }
}

/// Undoes now, also over what somebody changed since: it is there to win a connection back, and keeps a copy of that.
/// `Nothing`: its time began only now. Errors: what could not be put back.
fn undo_now(host: &Host, apis: &[(Product, ApiConfig)], why: &str) -> Result<Ended> {
    let Some(first) = pending_confirm::read(host) else { return Ok(Ended::Nothing) };
    let _alone = alone_at_last(host, &first)?;

    // Confirmed or undone in the last moment.
    let Some(armed) = pending_confirm::read(host).filter(|armed| armed.id == first.id) else {
        return ended(host, &first.id);
    };
    if why == NOBODY && !armed.is_due() {
        return Ok(Ended::Nothing);
    }
    let mut journal = journal::find(host, Some(&armed.id))?;

    // A boot starts the services itself, with what is put back; to restart one would wait for the boot to end.
    let undone = if armed.boot == session::boot_id() {
        restore::roll_back(host, &mut journal, apis, true)?
    } else {
        let undone = undo::files(host, &mut journal, true)?;
        services::read_again_at_boot(host, undone.restored_paths.iter().map(Name::as_path));
        undone
    };
    for problem in &undone.problems {
        log::warn!("{}", problem.what);
    }

    // At an early boot, or without quorum, the cluster file system takes nothing: whoever called comes again.
    if undone.left > 0 {
        let errors = undone.problems.iter().filter(|problem| problem.severity > Severity::Notice);
        let first = errors.map(|problem| format!(": {}", problem.what)).next().unwrap_or_default();
        let message = format!("{}: {} not put back yet{first}", armed.id, counted(undone.left, "path"));
        let hint = format!("`pbx-config undo {}` tries again and reports every path", armed.id);
        return Err(Fault::new(FaultKind::Failed, message).hint(hint).into());
    }

    let kept = match undone.kept {
        0 => String::new(),
        n => format!("; of {} that had changed since there are copies", counted(n, "path")),
    };
    // Before it is disarmed: who waits for that reads it.
    audit_log::note(host, "undo", &journal.record, &format!("{}: {why}{kept}", audit_log::BY_ITSELF));
    // On a disk that takes nothing it stays armed, and is as before all the same.
    if let Err(error) = pending_confirm::disarm(host, &armed.id) {
        log::error!("{}: {error:#}", armed.id);
    }
    Ok(Ended::Undone)
}

/// Takes the locks. Waits for a restore that still writes until it hangs, for a backup only so long: it reads.
fn alone_at_last(host: &Host, armed: &PendingConfirm) -> Result<(Option<Lock>, RestoreLock)> {
    let done_by = armed.done_by();
    let left = done_by.map(|at| Duration::from_secs_f64((at - session::uptime()).clamp(0.0, 1e9)));
    let wait = left.map_or(LOCK_WAIT, |left| left.min(LOCK_WAIT));
    let alone = patiently(wait, || restore::lock_restore(host)).or_else(|error| {
        if !hangs(host, &armed.id) {
            return Err(error);
        }
        let pid = restore::kill(host).ok_or(error)?;
        log::error!("{}: the process {pid} that applies it hangs and is killed", armed.id);
        patiently(confirm::CONFIRM_WAIT, || restore::lock_restore(host))
    })?;
    let lock = patiently(BACKUP_WAIT, || Lock::acquire(&host.run_dir()));
    if let Err(error) = &lock {
        log::warn!("undoing while another run holds the lock: {error:#}");
    }

    Ok((lock.ok(), alone))
}

/// Reports whether an armed restore hangs past its time. False for one that is being undone: that is wanted. False
/// for one that was resumed, too.
fn hangs(host: &Host, id: &str) -> bool {
    let Some(armed) = pending_confirm::read(host).filter(|armed| armed.id == id) else { return false };
    let phase = Journal::open(host, id).map(|journal| journal.phase);
    let is_late = armed.done_by().is_some_and(|at| session::uptime() >= at);
    is_late && matches!(phase, Ok(RestorePhase::Prepared | RestorePhase::Begun | RestorePhase::Written))
}
