//! The memory of a restore on disk, `undo/<id>/`: what it does (`record.json`), copies of all it touches
//! (`before/N`) and of all it puts there (`after/N`), and how far it came (`journal`). Whatever happens to the
//! process or the power, these tell how to go back and how to go on. An undo that is forced keeps here what it found
//! (`found/N`).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::model::index::{Mtime, Name};
use crate::model::nearest::nearest;
use crate::model::problem::{Fault, FaultKind, Problem};
use crate::model::snapshot::SnapshotId;
use crate::plan::restore::RestoreStep;
use crate::plan::restore::stage::{self, Stage};
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;

const RECORD: &str = "record.json";
const JOURNAL: &str = "journal";
const UNDO: &str = "undo";
pub const BEFORE: &str = "before";
pub const AFTER: &str = "after";
const FOUND: &str = "found";
/// The number of journals kept. One that is not at its end is never removed to keep this number.
const KEPT: usize = 10;
/// A hundred thousand steps.
const RECORD_MAX_BYTES: u64 = 256 << 20;
/// A few lines for each step.
const JOURNAL_MAX_BYTES: u64 = 64 << 20;
const FORMAT: u32 = 1;

/// The record of a restore, written before it does anything.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestoreRecord {
    pub format: u32,
    pub id: String,
    pub snapshot: SnapshotId,
    /// Digest of the plan.
    pub digest: String,
    /// Seconds since 1970.
    pub at: i64,
    pub steps: Vec<RestoreStep>,
    /// Folders whose time changes with what is put into them.
    pub folders: Vec<(Name, Mtime)>,
    /// Stages in the order they are done.
    #[serde(flatten, with = "stage::by_name")]
    pub stages: Vec<Stage>,
    /// Units that ran before: only those are restarted, and started again.
    pub running: Vec<String>,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RestorePhase {
    /// Nothing was written yet.
    Prepared,
    /// Steps were begun.
    Begun,
    /// All steps are done; services perhaps not.
    Written,
    /// All of it is done.
    Done,
    /// Kept by its admin; can still be undone.
    Confirmed,
    /// Half undone.
    Undoing,
    Undone,
}

impl std::fmt::Display for RestorePhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Prepared => "nothing written yet",
            Self::Begun => "half done",
            Self::Written => "written, services not handled",
            Self::Done => "done",
            Self::Confirmed => "confirmed",
            Self::Undoing => "half undone",
            Self::Undone => "undone",
        })
    }
}

/// A copy in a restore's directory.
pub struct SavedCopy {
    /// To be told.
    pub path: PathBuf,
    /// Err: it is not there, or is no regular file.
    pub file: io::Result<File>,
}

/// A restore's directory, open to go on writing its journal.
pub struct Journal {
    dir: HostDir,
    pub record: RestoreRecord,
    pub phase: RestorePhase,
    /// Steps that were begun; what is not among them was not touched.
    pub begun: HashSet<usize>,
    /// The steps among them that were finished.
    pub finished: HashSet<usize>,
    /// Set when its lines cannot be read: then every step may have been begun.
    pub unread: Option<String>,
    /// Err: why nothing can be written to it.
    file: Result<File, String>,
}

/// Opens the directory that has the directories of all restores. Errors: `NotFound` when there is none.
pub fn folder(host: &Host) -> io::Result<HostDir> {
    host.state()?.dir(UNDO)
}

/// The path of that directory, to be told.
pub fn path(host: &Host) -> PathBuf {
    host.state_path().join(UNDO)
}

impl Journal {
    /// Creates the journal in a directory with its copies. After that the restore can be undone.
    pub fn create(dir: HostDir, record: RestoreRecord) -> Result<Self> {
        dir.replace(RECORD, 0o600, &serde_json::to_vec(&record)?)?;
        let journal = Self::new(dir, record);
        if let Err(why) = &journal.file {
            bail!("{why}");
        }
        journal.dir.sync()?;
        Ok(journal)
    }

    /// Opens the journal of a restore. One that cannot be read or written, on a disk that fails, still tells how to
    /// go back.
    /// Errors: its record cannot be read.
    pub fn open(host: &Host, id: &str) -> Result<Self> {
        let shown = path(host).join(id).join(RECORD);
        let dir = folder(host).and_then(|folder| folder.dir(id));
        let text = dir.and_then(|dir| Ok((dir.read(RECORD, RECORD_MAX_BYTES)?, dir)));
        let (text, dir) = text.with_context(|| format!("cannot read {}", shown.display()))?;
        let record: RestoreRecord =
            serde_json::from_slice(&text).with_context(|| shown.display().to_string())?;
        if record.format != FORMAT {
            let message = format!("{}: was written by another version", dir.path().display());
            return Err(Fault::new(FaultKind::Failed, message).hint("undo it with that version").into());
        }

        let mut journal = Self::new(dir, record);
        let text = journal.dir.read(JOURNAL, JOURNAL_MAX_BYTES).unwrap_or_else(|error| {
            journal.unread = Some(format!("cannot read {}: {error}", journal.shown()));
            journal.phase = RestorePhase::Begun;
            journal.begun = (0..journal.record.steps.len()).collect();
            Vec::new()
        });

        // A line that the power cut short has no end; what is no line of ours says nothing.
        for line in text.split_inclusive(|b| *b == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
            journal.replay(&String::from_utf8_lossy(line));
        }
        Ok(journal)
    }

    fn new(dir: HostDir, record: RestoreRecord) -> Self {
        let shown = dir.path().join(JOURNAL);
        let file = dir.append(JOURNAL).map_err(|error| format!("cannot open {}: {error}", shown.display()));
        Self {
            dir,
            record,
            phase: RestorePhase::Prepared,
            begun: HashSet::new(),
            finished: HashSet::new(),
            unread: None,
            file,
        }
    }

    /// The path of the journal, to be told.
    fn shown(&self) -> String {
        self.dir.path().join(JOURNAL).display().to_string()
    }

    fn replay(&mut self, line: &str) {
        let (word, number) = line.split_once(' ').unwrap_or((line, ""));
        let number = number.parse::<usize>().ok().filter(|n| *n < self.record.steps.len());

        match (word, number) {
            ("begin", Some(n)) => {
                self.phase = RestorePhase::Begun;
                self.begun.insert(n);
                self.finished.remove(&n);
            }
            ("end", Some(n)) => {
                self.finished.insert(n);
            }
            ("written", _) => self.phase = RestorePhase::Written,
            ("done", _) => self.phase = RestorePhase::Done,
            ("confirmed", _) => self.phase = RestorePhase::Confirmed,
            ("undoing", _) => self.phase = RestorePhase::Undoing,
            ("undone", _) => self.phase = RestorePhase::Undone,
            _ => {}
        }
    }

    /// Appends lines, and has them on the disk before it returns.
    pub fn write(&mut self, lines: &str) -> Result<()> {
        let file = self.file.as_mut().map_err(|why| anyhow!("{why}"))?;
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        written.with_context(|| format!("cannot write {}", self.shown()))?;
        lines.lines().for_each(|line| self.replay(line));
        Ok(())
    }

    /// Returns the numbers of the steps of a stage, in the order they are done.
    pub fn steps_of(&self, stage: &Stage) -> impl DoubleEndedIterator<Item = usize> {
        let steps = self.record.steps.iter().enumerate().filter(|(_, step)| stage.has(step));
        steps.map(|(n, _)| n)
    }

    /// Reports whether a step of the stage was begun.
    pub fn has_begun(&self, stage: &Stage) -> bool {
        self.begun.iter().any(|n| stage.has(&self.record.steps[*n]))
    }

    /// Opens the copy of what was there before step `n`.
    pub fn before(&self, n: usize) -> SavedCopy {
        self.copy(BEFORE, n)
    }

    /// Opens the copy of what step `n` puts there.
    pub fn after(&self, n: usize) -> SavedCopy {
        self.copy(AFTER, n)
    }

    fn copy(&self, folder: &str, n: usize) -> SavedCopy {
        let name = n.to_string();
        let file = self.dir.dir(folder).and_then(|folder| folder.file(&name));
        SavedCopy { path: self.dir.path().join(folder).join(name), file }
    }

    /// Creates a file for what somebody put in the place of step `n` since.
    pub fn new_found(&self, n: usize) -> Result<(PathBuf, File)> {
        let cannot = |path: PathBuf| format!("cannot create {}", path.display());
        let folder = self.dir.make_dir(FOUND).with_context(|| cannot(self.dir.path().join(FOUND)))?;
        for again in 1.. {
            let name = if again == 1 { n.to_string() } else { format!("{n}-{again}") };
            let path = folder.path().join(&name);
            match folder.new_file(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return Ok((path.clone(), made.with_context(|| cannot(path))?)),
            }
        }
        unreachable!("numbers do not end")
    }

    /// Returns the name under which step `n` writes beside its file: of digits, as pmxcfs's own readers pass over.
    pub fn temp(&self, n: usize) -> String {
        let digits: String = self.record.id.chars().filter(char::is_ascii_digit).collect();
        format!(".pbx.tmp.{digits}{n:05}")
    }
}

/// Creates a private directory, named after the time. Errors: `Failed` where nothing can be kept.
pub fn new_folder(host: &Host) -> Result<(String, HostDir)> {
    let made = host.make_state().and_then(|state| Ok(state.make_dir(UNDO)?));
    let parent = made.with_context(|| {
        let message =
            format!("cannot create {}, without which nothing could be undone", path(host).display());
        Fault::failed(message).hint("nothing was changed; see what is of this name there")
    })?;
    let time = host.now.strftime("%Y%m%dT%H%M%SZ").to_string();
    for n in 1.. {
        let id = if n == 1 { time.clone() } else { format!("{time}-{n}") };
        match parent.new_dir(&id) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                let dir =
                    made.with_context(|| format!("cannot create {}", parent.path().join(&id).display()))?;
                return Ok((id, dir));
            }
        }
    }
    unreachable!("numbers do not end")
}

/// Removes the directory of a restore.
pub fn remove(host: &Host, id: &str) -> io::Result<()> {
    folder(host)?.remove_dir_all(id)
}

/// Lists the ids of all restores in the order of time.
pub fn ids(host: &Host) -> Vec<String> {
    let Ok(folder) = folder(host) else { return Vec::new() };
    let names = folder.names().unwrap_or_default().into_iter();
    let mut ids: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    ids.retain(|id| folder.dir(id).is_ok_and(|dir| dir.file(RECORD).is_ok()));
    // -10 is later than -9.
    ids.sort_by_key(|id| {
        let (time, n) = id.split_once('-').unwrap_or((id, "1"));
        (time.to_owned(), n.parse::<u32>().unwrap_or_default())
    });
    ids
}

/// Returns the last restore before this one that is not undone and can be read.
pub fn older(host: &Host, id: &str) -> Option<String> {
    let ids = ids(host);
    let at = ids.iter().position(|known| known == id)?;
    let is_not_undone =
        |id: &&String| Journal::open(host, id).is_ok_and(|journal| journal.phase != RestorePhase::Undone);
    ids[..at].iter().rev().find(is_not_undone).cloned()
}

/// Opens the restore of this id; without an id the last of all, whether it is undone or not, so that nobody undoes
/// an older one by surprise.
/// Errors: `NotFound` with what there is; it cannot be read, with what to undo instead.
pub fn find(host: &Host, id: Option<&str>) -> Result<Journal> {
    let ids = ids(host);
    let Some(word) = id else {
        let Some(last) = ids.last() else {
            let fault = Fault::new(FaultKind::NotFound, "there is no restore to undo");
            return Err(fault.hint("`pbx-config restore` restores a snapshot").into());
        };
        return Journal::open(host, last).map_err(|error| {
            let fault =
                Fault::new(FaultKind::Failed, format!("the last restore {last} cannot be read: {error:#}"));
            let copies =
                format!("copies of what it changed are in {}/before", path(host).join(last).display());
            let older =
                older(host, last).map(|id| format!("; `pbx-config undo {id}` undoes the one before it"));
            fault.hint(copies + &older.unwrap_or_default()).into()
        });
    };
    if ids.iter().any(|known| known == word) {
        return Journal::open(host, word);
    }

    let known: Vec<&str> = ids.iter().map(String::as_str).collect();
    let fault = Fault::new(FaultKind::NotFound, format!("restore '{word}' does not exist"));
    let hint = match nearest(word, &known) {
        Some(near) => format!("did you mean '{near}'?"),
        None if known.is_empty() => "there is no restore yet".to_owned(),
        None => format!("there are {}", known.join(", ")),
    };
    Err(fault.hint(hint).into())
}

/// Removes what is older than is kept, and what a restore left that was killed before it could write anything.
/// A restore that is half done, half undone or armed stays whatever its age.
pub fn sweep(host: &Host, armed: Option<&str>) -> Vec<Problem> {
    let known = ids(host);
    let is_unknown = |name: &OsStr| known.iter().all(|id| *name != **id);
    let Ok(folder) = folder(host) else { return Vec::new() };
    let mut problems = folder.sweep_dirs(is_unknown).unwrap_or_default();

    let at_end: Vec<&String> = known
        .iter()
        .filter(|id| Some(id.as_str()) != armed)
        .filter(|id| {
            let phase = Journal::open(host, id).map(|journal| journal.phase);
            phase.is_ok_and(|phase| {
                !matches!(phase, RestorePhase::Begun | RestorePhase::Written | RestorePhase::Undoing)
            })
        })
        .collect();
    for id in &at_end[..at_end.len().saturating_sub(KEPT)] {
        if let Err(error) = folder.remove_dir_all(id) {
            let dir = folder.path().join(id);
            problems.push(Problem::warning(format!("{}: cannot be removed: {error}", dir.display())));
        }
    }
    problems
}

impl RestoreRecord {
    pub const FORMAT: u32 = FORMAT;
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
