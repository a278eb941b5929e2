//! Records of runs: one private file each; the newest are kept, limited in number and size.

use std::io::{self, ErrorKind};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::model::problem::Fault;
use crate::model::record::RunRecord;
use crate::sys::fs::leftovers;
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;

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

/// Opens the directory of the records. None: there is none.
fn dir(host: &Host) -> Result<Option<HostDir>> {
    match host.state().and_then(|state| state.dir(DIR)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).with_context(|| cannot("read", host)),
    }
}

fn cannot(verb: &str, host: &Host) -> String {
    format!("cannot {verb} {}", host.state_path().join(DIR).display())
}

/// Writes a record and removes the oldest that are too many. Returns its id, a name in time.
pub fn keep(host: &Host, mut record: RunRecord) -> Result<RunRecord> {
    let dir = host.make_state()?.make_dir(DIR).with_context(|| cannot("create", host))?;

    let stem = format!("{}-{}", record.began.strftime(ID_TIME), record.verb);
    let names = (1..SAME_SECOND_MAX).map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") });
    record.id = names
        .into_iter()
        .find(|name| dir.lstat(format!("{name}{SUFFIX}")).is_err())
        .context("there are too many records of this second")?;

    let mut text = serde_json::to_vec(&record)?;
    if text.len() > RECORD_MAX_BYTES {
        shorten(&mut record);
        text = serde_json::to_vec(&record)?;
    }

    // Each has a name of its own: no later one comes by what a kill left of it.
    let _ = dir.sweep_files(leftovers::is_of_dead);
    dir.replace(format!("{}{SUFFIX}", record.id), PRIVATE, &text)?;
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
fn bound(dir: &HostDir) -> Result<()> {
    let names = names(dir)?;
    let mut bytes = 0;
    for (n, name) in names.iter().enumerate() {
        bytes += dir.lstat(name).map_or(0, |meta| meta.len());
        if n >= RECORDS_MAX || bytes > RECORDS_MAX_BYTES {
            dir.remove(name).with_context(|| format!("cannot remove {}", dir.path().join(name).display()))?;
        }
    }
    Ok(())
}

/// Lists the file names of records only, newest first: by their begin, and within one second by the time of writing.
/// Half-written ones begin with a dot.
fn names(dir: &HostDir) -> Result<Vec<String>> {
    let names = dir.names().with_context(|| format!("cannot read {}", dir.path().display()))?;
    let records = names.into_iter().filter_map(|name| {
        let name = name.into_string().ok()?;
        let meta = dir.lstat(&name).ok().filter(std::fs::Metadata::is_file)?;
        let written = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
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
    let Some(dir) = dir(host)? else { return Ok(Vec::new()) };
    let names = names(&dir)?;
    Ok(names.iter().filter_map(|name| read(&dir, name)).collect())
}

/// Bytes of the last snapshot that was made, as far as the last few runs know.
pub fn newest_size(host: &Host) -> Option<u64> {
    const RUNS: usize = 10;
    let dir = dir(host).ok()??;
    let names = names(&dir).ok()?;
    names.iter().take(RUNS).find_map(|name| Some(read(&dir, name)?.stats?.size))
}

fn read(dir: &HostDir, name: &str) -> Option<RunRecord> {
    let text = dir.read(name, 2 * RECORD_MAX_BYTES as u64);
    let record = text.and_then(|text| serde_json::from_slice::<RunRecord>(&text).map_err(io::Error::from));
    let told = |error: &io::Error| log::info!("cannot read {}: {error}", dir.path().join(name).display());
    let mut record = record.inspect_err(told).ok()?;
    name.trim_end_matches(SUFFIX).clone_into(&mut record.id);
    Some(record)
}

/// Finds a record by its id or by a beginning of it that only one has; `latest` is the newest. Errors: `NotFound`.
pub fn find(host: &Host, word: &str) -> Result<RunRecord> {
    let dir = dir(host)?;
    let names = dir.as_ref().map_or(Ok(Vec::new()), names)?;
    let exact = format!("{word}{SUFFIX}");
    let matching: Vec<&String> = match names.iter().find(|name| **name == exact) {
        _ if word == "latest" => names.first().into_iter().collect(),
        Some(name) => vec![name],
        None => names.iter().filter(|name| name.starts_with(word)).collect(),
    };
    let missing = |message: String, hint: &str| Fault::not_found(message).hint(hint);

    match matching[..] {
        [] => Err(missing(format!("{word}: no such record"), "`pbx-config log` lists them").into()),
        [name] => dir.and_then(|dir| read(&dir, name)).ok_or_else(|| {
            missing(format!("{word}: cannot be read"), "`pbx-config log` lists the others").into()
        }),
        _ => {
            let message = format!("{word}: matches {} records", matching.len());
            Err(missing(message, "use more of the id; `pbx-config log` lists them").into())
        }
    }
}
