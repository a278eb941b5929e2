//! Preparation of a backup: the lock, who can open the snapshot, the sources, a folder to write in, and a name.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};

use super::name;
use crate::archive::codec;
use crate::archive::keys::Keys;
use crate::archive::writer::Protection;
use crate::config::{BackupConfig, Config};
use crate::model::problem::{Fault, Outcome, Problem, Severity};
use crate::model::snapshot::{Compression, Counts, FORMAT, Parent, Payload, Snapshot, SnapshotId, Trigger};
use crate::plan::select::Selection;
use crate::store::Store;
use crate::sys::fs::scratch;
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;
use crate::sys::process::lock::Lock;
use crate::task::check;
use crate::task::keys::{self, key_check};
use crate::task::runs::installation;
use crate::task::scan::sources::Sources;

/// The most threads when the configuration names none: more would cost memory and gain nothing on a few MB.
const THREADS_MAX: u32 = 4;
const THREADS_LIMIT: u32 = 64;
const WORK: &str = "work";

pub struct BackupRequest {
    pub selection: Selection,
    pub note: Option<String>,
    pub protect: bool,
    pub trigger: Trigger,
}

/// A run before it reads the host.
pub struct Preparation {
    pub sources: Sources,
    pub draft: Draft,
    /// The key for reading back what is written; empty when the file is not encrypted or nobody here can open it.
    pub keys: Keys,
    /// The snapshot file while it is written.
    pub spool: PathBuf,
    // Dropped in this order: the folder is cleaned up while the lock is held.
    pub work: Work,
    pub lock: Lock,
}

/// A snapshot before anything of the host is in it.
pub struct Draft {
    pub snapshot: Snapshot,
    pub protection: Protection,
    pub problems: Vec<Problem>,
    /// False: only some items were asked for, and all other files would count as missing.
    pub is_whole: bool,
}

impl Preparation {
    /// Errors: `Usage` for what is configured wrong; the primary store cannot be listed; a check that stops backups.
    pub fn new(
        host: &Host,
        config: &Config,
        stores: &[Box<dyn Store>],
        request: &BackupRequest,
        lock: Lock,
    ) -> Result<Self> {
        let recipients = keys::recipients(host, config)?;
        let mut advice: Vec<Problem> = key_check::overdue(host, &recipients).into_iter().collect();
        let protection = keys::protection(host, &recipients, config, &mut advice)?;
        let read_key = protection.seal.as_ref().and_then(|seal| seal.held.clone());

        let mut sources = Sources::new(host, config, stores, &request.selection)?;
        let mut problems = std::mem::take(&mut sources.problems);
        problems.append(&mut advice);
        problems.extend(check::preflight(host, config)?);

        let work = Work::new(host, &mut problems)?;
        let (id, parent) = name::next(host, stores, &mut problems)?;
        let spool = work.dir.path().join(id.file_name());
        let mut snapshot = draft(host, config, request, id, parent)?;
        snapshot.counts.pmxcfs = sources.pmxcfs_files();

        let is_whole = request.selection.only.is_empty();
        Ok(Self {
            sources,
            draft: Draft { snapshot, protection, problems, is_whole },
            keys: read_key.map(Keys::of_run).unwrap_or_default(),
            spool,
            work,
            lock,
        })
    }
}

/// A private directory for the file while it is written; the file that a killed run left there is removed first.
pub struct Work {
    above: HostDir,
    dir: HostDir,
}

impl Work {
    fn new(host: &Host, problems: &mut Vec<Problem>) -> Result<Self> {
        // Another system may be read-only, or lead out of its root by a link; /run is memory, a snapshot is small.
        let made = host.make_state().and_then(|above| Ok((above.make_dir(WORK)?, above)));
        let (dir, above) = match made {
            Err(_) if !host.is_live() => {
                let above = host.make_run_dir()?;
                (above.make_dir(WORK).with_context(|| format!("cannot make {WORK}"))?, above)
            }
            made => made?,
        };

        let work = Self { above, dir };
        problems.extend(work.sweep());
        // Copies that a killed `verify` or `restore` had downloaded.
        let downloads = host.download_dir();
        if let Err(error) = scratch::sweep(&downloads) {
            let what = format!("{}: cannot be cleaned up: {error}", downloads.display());
            problems.push(Problem::warning(what).hint("remove the directories in it by hand"));
        }
        Ok(work)
    }

    /// Makes the snapshot file.
    pub fn new_file(&self, spool: &Path) -> Result<File> {
        Ok(self.dir.new_file(spool.file_name().unwrap_or_default())?)
    }

    /// Removes snapshot files and nothing else.
    fn sweep(&self) -> Vec<Problem> {
        let is_spool = |name: &OsStr| name.to_str().and_then(SnapshotId::from_file_name).is_some();
        self.dir.sweep_files(is_spool).unwrap_or_else(|error| {
            let what = format!("{}: cannot be cleaned up: {error}", self.dir.path().display());
            vec![Problem::warning(what).hint("remove the files in it by hand")]
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        for problem in self.sweep().iter().filter(|problem| problem.severity > Severity::Notice) {
            log::warn!("{}", problem.what);
        }
        let _ = self.above.remove_dir(WORK);
    }
}

/// A root that holds no system is a disk that is not mounted, not a host without configuration.
pub fn check_is_system(host: &Host) -> Result<()> {
    if host.facts.products.is_empty() && host.facts.os.is_none() && !host.has_name() {
        let message = format!(
            "{}: there is no system here: no product, no os-release, no host name",
            host.root().display()
        );
        return Err(Fault::usage(message).hint("is it mounted?").into());
    }
    Ok(())
}

fn draft(
    host: &Host,
    config: &Config,
    request: &BackupRequest,
    id: SnapshotId,
    parent: Option<Parent>,
) -> Result<Snapshot> {
    let facts = &host.facts;

    Ok(Snapshot {
        format: FORMAT,
        id,
        node: facts.node.clone(),
        machine_id: facts.machine_id.clone(),
        products: facts.products.clone(),
        cluster: facts.cluster.clone(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        codec: compression(config)?,
        sealed: None,
        payload: Payload::default(),
        installation: installation::ensure(host),
        howto: None,
        counts: Counts::default(),
        outcome: Outcome::Ok,
        trigger: request.trigger,
        parent,
        note: request.note.clone(),
        selection: request.selection.words(),
        protected: request.protect,
        skips_unchanged: config.backup.skip_unchanged,
        legacy: None,
    })
}

/// The codec as it will really run. Errors: `Usage`, in the words of the configuration.
pub fn compression(config: &Config) -> Result<Compression> {
    let BackupConfig { compression, compression_mode, compression_level, compression_threads, .. } =
        &config.backup;
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = match compression_threads {
        0 => u32::try_from(processors).unwrap_or(1).min(THREADS_MAX),
        n => (*n).min(THREADS_LIMIT),
    };
    let settled = codec::settle(compression, compression_mode.as_deref(), *compression_level, threads);
    settled.map_err(|error| {
        error.downcast::<Fault>().map_or_else(|error| error, |fault| fault.at("backup 'main'").into())
    })
}
