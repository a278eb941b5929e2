//! The rollback of an armed restore, done unless somebody who could log in again confirms it. It is armed on disk
//! before the first step that may cut a connection; a separate process waits beside it, and units of the package look
//! at every boot.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::journal::{self, Journal, RestorePhase};
use super::probe::{self, Probe};
use super::{RestoreLock, audit_log, services, undo};
use crate::config::ApiConfig;
use crate::model::facts::Product;
use crate::model::index::Name;
use crate::model::problem::{Fault, FaultKind, Problem, Severity};
use crate::model::units::counted;
use crate::sys::fs::files;
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;
use crate::sys::process::exec::{self, Cmd, ToolStatus};
use crate::sys::process::lock::Lock;
use crate::sys::process::session::{self, LoginSession, Newness};
use crate::task::restore;

const FILE: &str = "armed.json";
const MAX_BYTES: u64 = 64 << 10;
/// The beginning of its audit line.
const BY_ITSELF: &str = "rolled back automatically";
const NOBODY: &str = "it was not confirmed";
const POLL: Duration = Duration::from_millis(300);
/// Wait for another restore or undo when the time is up.
const LOCK_WAIT: Duration = Duration::from_secs(300);
/// A restore that still is not done so long after it should have undone itself (`restore::ARMED_LIMIT`) hangs, and is
/// ended.
const HANG_GRACE: Duration = Duration::from_secs(60);
/// Wait for a backup: one that hangs on the network that was cut must not keep it cut.
const BACKUP_WAIT: Duration = Duration::from_secs(15);
/// An undo that could not put back all is tried again so soon, then after twice that, and so on.
const AGAIN_FIRST: Duration = Duration::from_secs(15);
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// Wait of `confirm` for the restore to do its last, or for an undo to end.
const CONFIRM_WAIT: Duration = Duration::from_secs(20);
/// Time that the waiting process may take to begin after the end of its time; then the watching process does it.
const WATCH_GRACE: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(20);
const ALIVE_LIMIT: Duration = Duration::from_secs(10);
const ALIVE_POLL: Duration = Duration::from_millis(10);
/// A copy of the program in the directory of a restore. systemd starts it again and again, whatever an upgrade makes of the
/// installed one.
const PROGRAM: &str = "pbx-config";
const PROGRAM_MODE: u32 = 0o700;
/// The number of rounds of probes in a row that must be good.
const GOOD_ROUNDS: u32 = 3;
const ROUND_EVERY: Duration = Duration::from_secs(2);
/// Probes that are not good so long after the last step will not be. Of a short time to confirm it is half: what cuts
/// a connection is undone before somebody has to wait for the end.
const PROBE_GRACE_MAX: Duration = Duration::from_secs(60);

/// The file on the disk while a restore is armed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PendingConfirm {
    pub id: String,
    boot: String,
    /// Seconds of uptime, of the arming.
    #[serde(default)]
    at: f64,
    /// Seconds of uptime. While it is applied, of one that is killed or hangs; set again when all is done.
    deadline: f64,
    /// Seconds from there on.
    #[serde(default)]
    within: f64,
    /// Seconds after its last step in which its probes may fail.
    #[serde(default)]
    probe_grace: f64,
    /// The login session that applied it.
    session: LoginSession,
    probes: Vec<Probe>,
}

impl PendingConfirm {
    pub fn is_due(&self) -> bool {
        self.boot != session::boot_id() || session::uptime() >= self.deadline
    }

    pub fn has_probes(&self) -> bool {
        !self.probes.is_empty()
    }

    /// Returns the time by which it is done or rolled back, in seconds of uptime of this boot.
    fn done_by(&self) -> Option<f64> {
        (self.boot == session::boot_id())
            .then_some(self.at + (restore::ARMED_LIMIT + HANG_GRACE).as_secs_f64())
    }

    fn is_overdue(&self) -> bool {
        self.is_due() && session::uptime() >= self.deadline + WATCH_GRACE.as_secs_f64()
    }

    /// Seconds until it undoes itself.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded
    pub fn left(&self) -> u64 {
        (self.deadline - session::uptime()).clamp(0.0, 1e9) as u64
    }
}

/// The end of an armed restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Confirmed,
    Undone,
    /// Nothing is armed.
    Nothing,
}

/// Reads the armed restore. A file that cannot be read counts as due, for the last restore that it can belong to: an
/// admin who cannot log in must not be shut out by a broken file.
pub fn read(host: &Host) -> Option<PendingConfirm> {
    let text = match journal::folder(host).and_then(|folder| folder.read(FILE, MAX_BYTES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        // Who may not look has nothing that waits for him.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !files::is_root() => {
            return None;
        }
        text => text.ok(),
    };
    text.and_then(|text| serde_json::from_slice(&text).ok()).or_else(|| unreadable(host))
}

fn unreadable(host: &Host) -> Option<PendingConfirm> {
    let ids = journal::ids(host).into_iter().rev();
    let mut journals = ids.filter_map(|id| Journal::open(host, &id).ok());
    let journal = journals.find(|journal| {
        let may_cut = journal.begun.iter().any(|n| journal.record.steps[*n].may_disconnect);
        may_cut && !matches!(journal.phase, RestorePhase::Undone | RestorePhase::Confirmed)
    })?;
    #[allow(clippy::cast_precision_loss)] // seconds
    let is_of_this_boot = journal.record.at as f64 >= host.now.as_second() as f64 - session::uptime();

    Some(PendingConfirm {
        id: journal.record.id,
        boot: if is_of_this_boot { session::boot_id() } else { String::new() },
        // Of one that is applied just now nobody says that it hangs.
        at: session::uptime(),
        deadline: 0.0,
        within: 0.0,
        probe_grace: 0.0,
        session: LoginSession::current(),
        probes: Vec::new(),
    })
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
    write(host, &armed)?;
    start_waiting(host, &armed).inspect_err(|_| drop(disarm(host, id)))?;
    Ok(armed)
}

/// Begins the time of a resumed restore again, so that it is not taken for one that was cut short.
pub fn go_on(host: &Host, id: &str) -> Result<()> {
    let Some(armed) = read(host).filter(|armed| armed.id == id && armed.boot == session::boot_id()) else {
        return Ok(());
    };
    let at = session::uptime();
    write(host, &PendingConfirm { at, deadline: at + (armed.deadline - armed.at), ..armed })
}

/// Begins the time to confirm: all is done and the services are settled, however long they took.
pub fn begin(host: &Host, armed: PendingConfirm) -> Result<PendingConfirm> {
    let armed = PendingConfirm { deadline: session::uptime() + armed.within, ..armed };
    write(host, &armed)?;
    Ok(armed)
}

fn write(host: &Host, armed: &PendingConfirm) -> Result<()> {
    journal::folder(host)?.replace(FILE, 0o600, &serde_json::to_vec(armed)?)
}

fn disarm(host: &Host, id: &str) -> Result<()> {
    let folder = journal::folder(host).context("cannot disarm")?;
    let _ = folder.dir(id).and_then(|dir| dir.remove(PROGRAM));
    match folder.remove(FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("cannot disarm"),
        _ => Ok(folder.sync()?),
    }
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

/// Waits beside an armed restore until it is confirmed, its time is up, or its probes decide: those of its file, or
/// `probes` for a system that is only mounted here. Errors: a signal ended the waiting; what is armed stays so, for
/// the next boot.
pub fn wait(host: &Host, apis: &[(Product, ApiConfig)], probes: &[Probe]) -> Result<Ended> {
    let read = || {
        let armed = read(host)?;
        let probes = if host.exec.is_of_host() { armed.probes.clone() } else { probes.to_vec() };
        Some(PendingConfirm { probes, ..armed })
    };
    let Some(mut armed) = read() else { return Ok(Ended::Nothing) };
    // Where that cannot be said it waits all the same.
    let lives = Lock::acquire_named(&host.run_dir(), &waiting(&armed.id));
    let _lives = lives.inspect_err(|error| log::warn!("{}: {error:#}", armed.id));
    let (mut good, mut applied_at, mut asked_at) = (0, None, f64::MIN);
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
        } else if !armed.probes.is_empty() && now - asked_at >= ROUND_EVERY.as_secs_f64() {
            let is_applied =
                Journal::open(host, &armed.id).is_ok_and(|journal| journal.phase >= RestorePhase::Done);
            if is_applied {
                let since = *applied_at.get_or_insert(now);
                asked_at = now;
                let asked = probe::ask(host, &armed.probes);
                good = if asked.is_ok() { good + 1 } else { 0 };
                if good >= GOOD_ROUNDS {
                    match confirm(host, &armed, "by its probes") {
                        Ok(_) => return Ok(Ended::Confirmed),
                        Err(error) => log::warn!("{error:#}"),
                    }
                }
                if let Err(failed) = asked
                    && now - since >= armed.probe_grace
                {
                    why = Some(format!("its probes failed: {failed}"));
                }
            }
        }
        std::thread::sleep(POLL);
    }
}

/// Returns why an armed restore undid itself. None: somebody undid it.
pub fn why_undone(host: &Host, id: &str) -> Option<String> {
    let lines = audit_log::lines(host).ok()?;
    let last = lines.into_iter().rev().find(|line| line.id == id && line.verb == "undo")?;
    last.result.starts_with(BY_ITSELF).then_some(last.result)
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
        let Some(now) = read(host).filter(|now| now.id == *id) else {
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
    match read(host) {
        Some(armed) if armed.is_due() => undo_now(host, apis, NOBODY),
        _ => Ok(Ended::Nothing),
    }
}

/// Undoes now, also over what somebody changed since: it is there to win a connection back, and keeps a copy of that.
/// `Nothing`: its time began only now. Errors: what could not be put back.
fn undo_now(host: &Host, apis: &[(Product, ApiConfig)], why: &str) -> Result<Ended> {
    let Some(first) = read(host) else { return Ok(Ended::Nothing) };
    let _alone = alone_at_last(host, &first)?;

    // Confirmed or undone in the last moment.
    let Some(armed) = read(host).filter(|armed| armed.id == first.id) else {
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
    audit_log::note(host, "undo", &journal.record, &format!("{BY_ITSELF}: {why}{kept}"));
    // On a disk that takes nothing it stays armed, and is as before all the same.
    if let Err(error) = disarm(host, &armed.id) {
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
        patiently(CONFIRM_WAIT, || restore::lock_restore(host))
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
    let Some(armed) = read(host).filter(|armed| armed.id == id) else { return false };
    let phase = Journal::open(host, id).map(|journal| journal.phase);
    let is_late = armed.done_by().is_some_and(|at| session::uptime() >= at);
    is_late && matches!(phase, Ok(RestorePhase::Prepared | RestorePhase::Begun | RestorePhase::Written))
}

fn patiently<T>(limit: Duration, acquire: impl Fn() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    loop {
        match acquire() {
            Err(_) if since.elapsed() < limit => std::thread::sleep(POLL),
            acquired => return acquired,
        }
    }
}

/// Keeps the armed restore. Errors: `NotFound` when none is armed, `Usage` from the session that applied it,
/// `Unconfirmed` when its time is over or it is not whole.
pub fn confirm_from_here(host: &Host, id: Option<&str>) -> Result<(String, Option<Problem>)> {
    restore::check_root()?;
    let nothing = || Fault::new(FaultKind::NotFound, "no restore waits for a confirmation");
    let armed = read(host).ok_or_else(nothing)?;
    if let Some(word) = id.filter(|word| *word != armed.id) {
        let message = format!("'{word}' does not wait for a confirmation");
        return Err(Fault::new(FaultKind::NotFound, message).hint(format!("{} does", armed.id)).into());
    }
    if armed.is_due() {
        return Err(too_late(host, &armed.id).into());
    }

    let (what, hint) = match LoginSession::current().newness(&armed.session, armed.at) {
        Newness::New => ("", ""),
        Newness::Same => (
            "cannot confirm: this is the session that applied it, which does not prove that a login works",
            "log in again (not in a window of tmux or screen), and confirm there",
        ),
        Newness::Older => (
            "cannot confirm: this session is older than the restore, which does not prove that a login works",
            "log in again, and confirm there: an open connection can continue where a new login fails",
        ),
        Newness::NoLogin => (
            "cannot confirm: this is not a login to this system",
            "log in to the system itself (ssh, console, web shell), not from outside of its container and not from a \
             service, and confirm there; if that is not possible, restore with --probe, which confirms automatically",
        ),
    };
    if !what.is_empty() {
        let back = format!("{hint}; `pbx-config undo {}` undoes it", armed.id);
        return Err(Fault::new(FaultKind::Usage, what).hint(back).into());
    }

    let problem = confirm(host, &armed, "from a new session")?;
    Ok((armed.id, problem))
}

fn confirm(host: &Host, armed: &PendingConfirm, how: &str) -> Result<Option<Problem>> {
    // Until it is confirmed nobody undoes it, and nobody still applies it.
    let _alone = patiently(CONFIRM_WAIT, || restore::lock_restore(host))?;
    if read(host).is_none_or(|now| now.id != armed.id || now.is_due()) {
        return Err(too_late(host, &armed.id).into());
    }
    let mut journal = journal::find(host, Some(&armed.id))?;
    if !matches!(journal.phase, RestorePhase::Done | RestorePhase::Confirmed) {
        let message = format!("{}: it is {}, and cannot be confirmed in this state", armed.id, journal.phase);
        return Err(Fault::new(FaultKind::Unconfirmed, message).hint(ways(&armed.id, journal.phase)).into());
    }
    journal.write("confirmed\n")?;
    disarm(host, &armed.id)?;
    Ok(audit_log::note(host, "confirm", &journal.record, how))
}

/// Builds the error for a restore that no longer waits or is out of time: it says the present state.
fn too_late(host: &Host, id: &str) -> Fault {
    let phase = Journal::open(host, id).map(|journal| journal.phase);
    let (is, hint) = match phase {
        Ok(RestorePhase::Undone) => match why_undone(host, id) {
            Some(why) => (why, "restore again, with a longer --confirm-within or other probes".to_owned()),
            None => ("it is undone, by `pbx-config undo`".to_owned(), "restore again".to_owned()),
        },
        Ok(RestorePhase::Confirmed) => {
            ("it was confirmed".to_owned(), format!("`pbx-config undo {id}` can still undo it"))
        }
        _ => (
            "its time is over, it is not undone yet".to_owned(),
            format!("`pbx-config undo {id}` undoes it now, and reports what prevents it"),
        ),
    };
    Fault::new(FaultKind::Unconfirmed, format!("{id}: {is}")).hint(hint)
}

/// Returns the hint on how to go back and on from where it was cut short.
pub fn ways(id: &str, phase: RestorePhase) -> String {
    let back = format!("`pbx-config undo {id}` undoes it");
    if phase == RestorePhase::Undoing {
        back
    } else {
        format!("{back}, `pbx-config restore --resume {id}` resumes it")
    }
}

/// Ends the waiting after an undo by hand.
pub fn forget(host: &Host, id: &str) -> Result<()> {
    match read(host) {
        Some(armed) if armed.id == id => disarm(host, id),
        _ => Ok(()),
    }
}
