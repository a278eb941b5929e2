//! The memory of a restore on disk, `undo/<id>/`: what it does (`record.json`), copies of all it touches
//! (`before/N`) and of all it puts there (`after/N`), and how far it came (`journal`). Whatever happens to the
//! process or the power, these tell how to go back and how to go on. An undo that is forced keeps here what it found
//! (`found/N`).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::model::index::{Mtime, Name};
use crate::model::nearest::nearest;
use crate::model::problem::{Fault, FaultKind, Problem};
use crate::model::snapshot::SnapshotId;
use crate::plan::restore::RestoreStep;
use crate::plan::restore::stage::{self, Stage};
use crate::sys::fs::{files, leftovers};
use crate::sys::host::Host;

const RECORD: &str = "record.json";
const JOURNAL: &str = "journal";
/// The size limit of a journal: two lines for each step.
const JOURNAL_MAX_BYTES: u64 = 16 << 20;
/// The number of journals kept. One that is not at its end is never removed to keep this number.
const KEPT: usize = 10;
/// A hundred thousand steps.
const RECORD_MAX_BYTES: u64 = 256 << 20;
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

/// A restore's directory, open to go on writing its journal.
pub struct Journal {
    pub dir: PathBuf,
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

/// Returns the directory that has the directories of all restores.
pub fn folder(host: &Host) -> PathBuf {
    host.state_dir().join("undo")
}

impl Journal {
    /// Creates the journal in a directory with its copies. After that the restore can be undone.
    pub fn create(dir: &Path, record: RestoreRecord) -> Result<Self> {
        files::replace(&dir.join(RECORD), 0o600, &serde_json::to_vec(&record)?)?;
        let file = open_journal(dir)?;
        files::sync_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            record,
            phase: RestorePhase::Prepared,
            begun: HashSet::new(),
            finished: HashSet::new(),
            unread: None,
            file: Ok(file),
        })
    }

    /// Opens the journal of a restore. One that cannot be read or written, on a disk that fails, still tells how to
    /// go back.
    /// Errors: its record cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let text = files::read_small(dir, RECORD, RECORD_MAX_BYTES)
            .with_context(|| format!("cannot read {}", dir.join(RECORD).display()))?;
        let record: RestoreRecord =
            serde_json::from_slice(&text).with_context(|| dir.join(RECORD).display().to_string())?;
        if record.format != FORMAT {
            let message = format!("{}: was written by another version", dir.display());
            return Err(Fault::new(FaultKind::Failed, message).hint("undo it with that version").into());
        }

        let mut journal = Self {
            dir: dir.to_owned(),
            record,
            phase: RestorePhase::Prepared,
            begun: HashSet::new(),
            finished: HashSet::new(),
            unread: None,
            file: open_journal(dir).map_err(|error| format!("{error:#}")),
        };
        let text = files::read_small(dir, JOURNAL, JOURNAL_MAX_BYTES).unwrap_or_else(|error| {
            journal.unread = Some(format!("cannot read {}: {error}", dir.join(JOURNAL).display()));
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
        written.with_context(|| format!("cannot write {}", self.dir.join(JOURNAL).display()))?;
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

    pub fn before(&self, n: usize) -> PathBuf {
        self.dir.join("before").join(n.to_string())
    }

    pub fn after(&self, n: usize) -> PathBuf {
        self.dir.join("after").join(n.to_string())
    }

    /// Creates a file for what somebody put in the place of step `n` since.
    pub fn new_found(&self, n: usize) -> Result<(PathBuf, File)> {
        let folder = self.dir.join("found");
        files::make_private_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        for again in 1.. {
            let path = folder.join(if again == 1 { n.to_string() } else { format!("{n}-{again}") });
            match files::new_private_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    let file = made.with_context(|| format!("cannot create {}", path.display()))?;
                    return Ok((path, file));
                }
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

fn open_journal(dir: &Path) -> Result<File> {
    let path = dir.join(JOURNAL);
    // Nothing is waited for that is no file.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let open = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(&path);
    open.with_context(|| format!("cannot open {}", path.display()))
}

/// Creates a private directory, named after the time.
pub fn new_folder(host: &Host) -> Result<(String, PathBuf)> {
    let parent = folder(host);
    files::make_private_dir(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let time = host.now.strftime("%Y%m%dT%H%M%SZ").to_string();
    for n in 1.. {
        let id = if n == 1 { time.clone() } else { format!("{time}-{n}") };
        let dir = parent.join(&id);
        match files::make_new_private_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => {
                made.with_context(|| format!("cannot create {}", dir.display()))?;
                return Ok((id, dir));
            }
        }
    }
    unreachable!("numbers do not end")
}

/// Lists the ids of all restores in the order of time.
pub fn ids(host: &Host) -> Vec<String> {
    let mut ids: Vec<String> = fs::read_dir(folder(host))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(RECORD).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
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
    let is_not_undone = |id: &&String| {
        Journal::open(&folder(host).join(id)).is_ok_and(|journal| journal.phase != RestorePhase::Undone)
    };
    ids[..at].iter().rev().find(is_not_undone).cloned()
}

/// Opens the restore of this id; without an id the last of all, whether it is undone or not, so that nobody undoes
/// an older one by surprise.
/// Errors: `NotFound` with what there is; it cannot be read, with what to undo instead.
pub fn find(host: &Host, id: Option<&str>) -> Result<Journal> {
    let ids = ids(host);
    let open = |id: &str| Journal::open(&folder(host).join(id));
    let Some(word) = id else {
        let Some(last) = ids.last() else {
            let fault = Fault::new(FaultKind::NotFound, "there is no restore to undo");
            return Err(fault.hint("`pbx-config restore` restores a snapshot").into());
        };
        return open(last).map_err(|error| {
            let fault =
                Fault::new(FaultKind::Failed, format!("the last restore {last} cannot be read: {error:#}"));
            let copies =
                format!("copies of what it changed are in {}/before", folder(host).join(last).display());
            let older =
                older(host, last).map(|id| format!("; `pbx-config undo {id}` undoes the one before it"));
            fault.hint(copies + &older.unwrap_or_default()).into()
        });
    };
    if ids.iter().any(|known| known == word) {
        return open(word);
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
    let mut problems = leftovers::sweep_dirs(&folder(host), is_unknown).unwrap_or_default();

    let at_end: Vec<PathBuf> = known
        .iter()
        .filter(|id| Some(id.as_str()) != armed)
        .map(|id| folder(host).join(id))
        .filter(|dir| {
            let phase = Journal::open(dir).map(|journal| journal.phase);
            phase.is_ok_and(|phase| {
                !matches!(phase, RestorePhase::Begun | RestorePhase::Written | RestorePhase::Undoing)
            })
        })
        .collect();
    for dir in &at_end[..at_end.len().saturating_sub(KEPT)] {
        if let Err(error) = fs::remove_dir_all(dir) {
            problems.push(Problem::warning(format!("{}: cannot be removed: {error}", dir.display())));
        }
    }
    problems
}

impl RestoreRecord {
    pub const FORMAT: u32 = FORMAT;
}
