//! Records of runs: one private file each; the newest are kept, limited in number and size.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::model::problem::Fault;
use crate::model::record::RunRecord;
use crate::sys::fs::{files, leftovers};
use crate::sys::host::Host;
use crate::sys::json_file::JsonFile;

const DIR: &str = "reports";
const SUFFIX: &str = ".json";
const ID_TIME: &str = "%Y%m%dT%H%M%SZ";
/// A year of nightly runs with their weekly verification.
const RECORDS_MAX: usize = 500;
/// Names of records that are looked at.
const NAMES_MAX: usize = 10 * RECORDS_MAX;
const RECORDS_MAX_BYTES: u64 = 32 << 20;
/// A record beyond loses problems, the last ones first.
const RECORD_MAX_BYTES: usize = 512 << 10;
const PROBLEMS_OF_A_LONG_ONE: usize = 100;
const PRIVATE: u32 = 0o600;
/// Records of the same second.
const SAME_SECOND_MAX: u32 = 1000;

fn dir(host: &Host) -> PathBuf {
    host.state_dir().join(DIR)
}

/// Writes a record and removes the oldest that are too many. Returns its id, a name in time.
pub fn keep(host: &Host, mut record: RunRecord) -> Result<RunRecord> {
    let state = host.own_state_dir().context("the state directory cannot be written")?;
    let dir = state.join(DIR);
    files::make_private_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;

    let stem = format!("{}-{}", record.began.strftime(ID_TIME), record.verb);
    let names = (1..SAME_SECOND_MAX).map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") });
    record.id = names
        .into_iter()
        .find(|name| !dir.join(format!("{name}{SUFFIX}")).exists())
        .context("there are too many records of this second")?;

    let mut text = serde_json::to_vec(&record)?;
    if text.len() > RECORD_MAX_BYTES {
        shorten(&mut record);
        text = serde_json::to_vec(&record)?;
    }

    // Each has a name of its own: no later one comes by what a kill left of it.
    let _ = leftovers::sweep_files(&dir, leftovers::is_of_dead);
    files::replace(&dir.join(format!("{}{SUFFIX}", record.id)), PRIVATE, &text)?;
    bound(&dir)?;
    Ok(record)
}

fn shorten(record: &mut RunRecord) {
    /// The length limit of one line.
    const LINE_MAX_CHARS: usize = 1000;
    record.problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    record.problems.truncate(PROBLEMS_OF_A_LONG_ONE);
    for problem in &mut record.problems {
        problem.what = problem.what.chars().take(LINE_MAX_CHARS).collect();
    }
    for one in &mut record.verified {
        one.proven.truncate(PROBLEMS_OF_A_LONG_ONE);
    }
}

/// The oldest go first; their names are times.
fn bound(dir: &Path) -> Result<()> {
    let names = names(dir)?;
    let mut bytes = 0;
    for (n, name) in names.iter().enumerate() {
        let path = dir.join(name);
        bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
        if n >= RECORDS_MAX || bytes > RECORDS_MAX_BYTES {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Lists the file names of records only, newest first: by their begin, and within one second by the time of writing.
/// Half-written ones begin with a dot.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", dir.display()))?,
    };
    let records = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let written = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        (name.ends_with(SUFFIX) && !name.starts_with('.')).then_some((name, written))
    });

    let mut found: Vec<(String, SystemTime)> = Vec::new();
    for record in records {
        found.push(record);
        // Old ones beyond those that are kept anyway are nobody's business, however many there are.
        if found.len() >= 2 * NAMES_MAX {
            sort(&mut found);
            found.truncate(NAMES_MAX);
        }
    }
    sort(&mut found);
    Ok(found.into_iter().map(|(name, _)| name).collect())
}

fn sort(found: &mut [(String, SystemTime)]) {
    let begin = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    found.sort_by_cached_key(|(name, written)| std::cmp::Reverse((begin(name), *written)));
}

/// Newest first. One that cannot be read is left out: it is told of no run.
pub fn all(host: &Host) -> Result<Vec<RunRecord>> {
    let dir = dir(host);
    let names = names(&dir)?;
    Ok(names.iter().filter_map(|name| read(&dir, name)).collect())
}

/// Bytes of the last snapshot that was made, as far as the last few runs know.
pub fn newest_size(host: &Host) -> Option<u64> {
    const RUNS: usize = 10;
    let dir = dir(host);
    let names = names(&dir).ok()?;
    names.iter().take(RUNS).find_map(|name| Some(read(&dir, name)?.stats?.size))
}

fn read(dir: &Path, name: &str) -> Option<RunRecord> {
    let file = JsonFile::<RunRecord>::new(dir, name, 2 * RECORD_MAX_BYTES as u64);
    let mut record = file.read().inspect_err(|error| log::info!("{error:#}")).ok()??;
    name.trim_end_matches(SUFFIX).clone_into(&mut record.id);
    Some(record)
}

/// Finds a record by its id or by a beginning of it that only one has; `latest` is the newest. Errors: `NotFound`.
pub fn find(host: &Host, word: &str) -> Result<RunRecord> {
    let dir = dir(host);
    let names = names(&dir)?;
    let exact = format!("{word}{SUFFIX}");
    let matching: Vec<&String> = match names.iter().find(|name| **name == exact) {
        _ if word == "latest" => names.first().into_iter().collect(),
        Some(name) => vec![name],
        None => names.iter().filter(|name| name.starts_with(word)).collect(),
    };
    let missing = |message: String, hint: &str| Fault::not_found(message).hint(hint);

    match matching[..] {
        [] => Err(missing(format!("{word}: no such record"), "`pbx-config log` lists them").into()),
        [name] => read(&dir, name).ok_or_else(|| {
            missing(format!("{word}: cannot be read"), "`pbx-config log` lists the others").into()
        }),
        _ => {
            let message = format!("{word}: matches {} records", matching.len());
            Err(missing(message, "use more of the id; `pbx-config log` lists them").into())
        }
    }
}
