//! `backup`: one pass from the host into a snapshot, read back, put on every store.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::collect::{self, Leftover, Piece, Scan, cause, shown};
use super::snapshots;
use crate::archive::codec;
use crate::archive::reader::Archive;
use crate::archive::writer::{Fit, Writer};
use crate::catalog::{self, Item, Source};
use crate::config::{Backup, Config};
use crate::model::facts::Product;
use crate::model::index::{Entry, Index, Kind, Mtime, Name, Output, STATE_DIR};
use crate::model::report::{Fault, FaultKind, Outcome, Phases, Problem, Report, Stored};
use crate::model::snapshot::{Compression, Counts, FORMAT, Parent, Payload, Snapshot, SnapshotId, Trigger};
use crate::plan::select::{self, Selection};
use crate::store::Store;
use crate::sys::exec::{Cmd, Exec, Status};
use crate::sys::files::{self, Owners, Stat};
use crate::sys::glob::Pattern;
use crate::sys::host::Host;
use crate::sys::lock::{Lock, check_stopped, private_dir};
use crate::sys::log::mask;
use crate::sys::pmxcfs::{self, Picture};

/// One command of the state.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// All commands of the state together.
const STATE_LIMIT: Duration = Duration::from_secs(120);
const COMMANDS_AT_ONCE: usize = 4;
const OUTPUT_MAX_BYTES: usize = 16 << 20;
const STDERR_KEPT_BYTES: usize = 2048;
/// Up to here a file is read whole before it is written, so that a change meanwhile is noticed and read again.
const SMALL_BYTES: u64 = 1 << 20;
const XATTRS_MAX_BYTES: usize = 512 << 10;
const READ_TRIES: usize = 3;
/// When the configuration leaves it to us: more would cost memory and gain nothing on a few MB.
const THREADS_MAX: u32 = 4;
const THREADS_LIMIT: u32 = 64;

pub struct Request {
    pub selection: Selection,
    pub note: Option<String>,
    pub protect: bool,
    pub trigger: Trigger,
}

/// What a run would read and write; nothing was read but names and sizes.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    pub system: String,
    pub snapshot: SnapshotId,
    pub items: Vec<Planned>,
    pub commands: Vec<String>,
    pub stores: Vec<String>,
    pub problems: Vec<Problem>,
}

#[derive(Debug, serde::Serialize)]
pub struct Planned {
    pub item: &'static str,
    pub title: &'static str,
    pub files: u64,
    pub bytes: u64,
}

pub fn plan(host: &Host, config: &Config, stores: &[Box<dyn Store>], request: &Request) -> Result<Plan> {
    check_is_system(host)?;
    let sources = Sources::new(host, config, stores, &request.selection)?;
    let (items, left) = count(host, &sources)?;
    let commands = outputs_of(&sources.items, host).into_iter().map(|output| output.argv.join(" ")).collect();
    let mut problems = sources.problems;
    problems.extend(left.problems);
    Ok(Plan {
        system: host.facts.summary(),
        snapshot: SnapshotId::new(&host.facts.node, host.now.timestamp()).context("a node name")?,
        items,
        commands,
        stores: stores.iter().map(|store| format!("{}: {}", store.name(), store.place())).collect(),
        problems,
    })
}

/// What every row finds on this host, without reading contents.
pub fn count(host: &Host, sources: &Sources) -> Result<(Vec<Planned>, Leftover)> {
    let mut planned: Vec<Planned> = Vec::new();
    let left = collect::walk(&sources.scan(host), &sources.items, &mut |item, piece| {
        if planned.last().is_none_or(|last| last.item != item.id) {
            planned.push(Planned { item: item.id, title: item.title, files: 0, bytes: 0 });
        }
        let (counts, bytes) = match piece {
            Piece::File { stat, .. } => (stat.node != files::Node::Kept(Kind::Dir), stat.size),
            Piece::Pve { node, .. } => (node.data.is_some(), node.data.as_ref().map_or(0, Vec::len) as u64),
            Piece::Database { data, .. } => (true, data.len() as u64),
        };
        if let (true, Some(last)) = (counts, planned.last_mut()) {
            last.files += 1;
            last.bytes += bytes;
        }
        Ok(())
    })?;
    Ok((planned, left))
}

/// Where a run reads from.
pub struct Sources {
    pub items: Vec<&'static Item>,
    picture: Option<Picture>,
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    pub problems: Vec<Problem>,
}

impl Sources {
    pub fn new(
        host: &Host,
        config: &Config,
        stores: &[Box<dyn Store>],
        selection: &Selection,
    ) -> Result<Self> {
        let mut wanted = selection.clone();
        wanted.skip.extend(config.backup.skip.iter().cloned());
        wanted.check()?;
        let items = wanted.items(&host.facts);
        let mut problems = config.problems.clone();
        let picture = if items.iter().any(|item| needs_picture(item)) {
            read_picture(host, &mut problems)
        } else {
            None
        };
        problems.extend(missing_products(host));
        let patterns =
            |globs: &[crate::config::Glob]| globs.iter().map(|glob| glob.0.clone()).collect::<Vec<_>>();
        let mut exclude = patterns(&config.backup.exclude);
        exclude.extend(own_places(host, stores));
        Ok(Self { items, picture, include: patterns(&config.backup.include), exclude, problems })
    }

    fn scan<'a>(&'a self, host: &'a Host) -> Scan<'a> {
        Scan { host, picture: self.picture.as_ref(), include: &self.include, exclude: &self.exclude }
    }
}

fn needs_picture(item: &Item) -> bool {
    matches!(item.source, Source::Pmxcfs(_) | Source::PmxcfsRest | Source::Database | Source::Snippets)
}

fn read_picture(host: &Host, problems: &mut Vec<Problem>) -> Option<Picture> {
    match pmxcfs::read(host) {
        Ok(mut picture) => {
            log::debug!("pmxcfs: {} entries from {}, {:?}", picture.nodes.len(), picture.how, picture.state);
            problems.append(&mut picture.problems);
            if picture.nodes.is_empty() {
                let what =
                    format!("{} is empty: there is nothing of the cluster in the snapshot", pmxcfs::MOUNT);
                problems.push(Problem::error(what).hint("see `journalctl -u pve-cluster`"));
            }
            Some(picture)
        }
        Err(error) => {
            let what = format!("{} could not be read and is not in the snapshot: {error:#}", pmxcfs::MOUNT);
            problems.push(
                Problem::error(what)
                    .hint("see `systemctl status pve-cluster` and `journalctl -u pve-cluster`"),
            );
            None
        }
    }
}

/// A product whose configuration is not where it must be: the snapshot would miss what it exists for.
fn missing_products(host: &Host) -> Vec<Problem> {
    let mut problems = Vec::new();
    if host.facts.products.is_empty() {
        let what = format!("no Proxmox product was found; looked at {}", host.facts.looked_at.join(", "));
        problems.push(Problem::notice(what).hint("only the system's own configuration is saved"));
    }
    if host.facts.has(Product::Pbs) && !host.path(catalog::PBS_DIR).is_dir() {
        problems.push(
            Problem::error(format!(
                "{} is not there, though Proxmox Backup Server is installed",
                catalog::PBS_DIR
            ))
            .hint("see `systemctl status proxmox-backup`"),
        );
    }
    problems
}

/// Our own stores and folders are never part of a snapshot.
fn own_places(host: &Host, stores: &[Box<dyn Store>]) -> Vec<Pattern> {
    let places =
        stores.iter().map(|store| PathBuf::from(store.place())).chain([host.state_dir(), host.run_dir()]);
    let inside = places.filter_map(|place| place.strip_prefix(host.root()).map(Path::to_owned).ok());
    inside.filter_map(|path| Pattern::literal(&Path::new("/").join(path))).collect()
}

/// Makes a snapshot and puts it on every store; the first one is the primary.
/// Errors: the lock, the primary store, no space, a snapshot that does not read back.
pub fn run(
    host: &Host,
    config: &Config,
    stores: &[Box<dyn Store>],
    request: &Request,
    say: &dyn Fn(&str),
) -> Result<Report> {
    let start = Instant::now();
    check_is_system(host)?;
    let _lock = Lock::acquire(&host.run_dir())?;
    let primary = stores.first().context("no store is configured")?;
    let mut sources = Sources::new(host, config, stores, &request.selection)?;
    let mut problems = std::mem::take(&mut sources.problems);
    let work = Work::new(host, &mut problems)?;
    let (id, parent) = next_id(host, primary.as_ref(), &mut problems)?;
    let spool = work.path.join(id.file_name());
    let mut phases = Phases { prepare: start.elapsed().as_secs_f64(), ..Phases::default() };

    let mut lap = Instant::now();
    let draft = draft(host, config, request, id, parent)?;
    let snapshot = write(host, &sources, draft, &spool, problems, say).map_err(|error| {
        if error.is::<std::io::Error>() {
            error.context(format!("cannot write {}", spool.display()))
        } else {
            error
        }
    })?;
    phases.write = lap.elapsed().as_secs_f64();
    say("reading it back");
    lap = Instant::now();
    let index = Archive::open(&spool)?.read(&spool, &mut |_, _| check_stopped()).context(
        Fault::new(
            FaultKind::Verification,
            "the snapshot that was just written does not read back; it was discarded",
        )
        .hint("check the memory and the disk of this host"),
    )?;
    phases.verify = lap.elapsed().as_secs_f64();
    lap = Instant::now();
    let mut problems = index.problems;
    let size = fs::metadata(&spool)?.len();
    let mut places = Vec::new();
    for (n, store) in stores.iter().enumerate() {
        say(&format!("writing to store {}", store.name()));
        let place = match store.put(&spool, &snapshot.id) {
            Ok(place) => Some(place),
            Err(error) if n == 0 => return Err(error),
            Err(error) => {
                let problem = Problem::error(format!("{error:#}"));
                problems.push(problem.hint("the snapshot is in the other stores"));
                None
            }
        };
        places.push(Stored { store: store.name().to_owned(), place, primary: n == 0 });
    }
    phases.store = lap.elapsed().as_secs_f64();
    Ok(Report {
        verb: "backup",
        host: host.facts.node.clone(),
        system: host.facts.summary(),
        outcome: Outcome::of(&problems),
        snapshot: Some(snapshot),
        size,
        stores: places,
        took: start.elapsed().as_secs_f64(),
        phases,
        problems,
    })
}

/// A private folder for the file while it is written; the file that a killed run left there is removed first.
struct Work {
    path: PathBuf,
}

impl Work {
    fn new(host: &Host, problems: &mut Vec<Problem>) -> Result<Self> {
        let beside_state = host.state_dir().join("work");
        // Another system may be read-only, or lead out of its root by a link; /run is memory, a snapshot is small.
        let path =
            if host.is_live() || is_ours(&beside_state) { beside_state } else { host.run_dir().join("work") };
        private_dir(&path)?;
        let work = Self { path };
        if work.sweep() > 0 {
            let what = format!("{}: removed what an interrupted run left", work.path.display());
            problems.push(Problem::notice(what));
        }
        Ok(work)
    }

    /// Removes snapshot files and nothing else; how many.
    fn sweep(&self) -> usize {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let spools =
            entries.filter(|entry| entry.file_name().to_str().and_then(SnapshotId::from_file_name).is_some());
        spools.filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.sweep();
        let _ = fs::remove_dir(&self.path);
    }
}

/// True when a folder below another system's root lies there really (no link on its way), and can be written.
fn is_ours(path: &Path) -> bool {
    let there = path.ancestors().find(|above| above.symlink_metadata().is_ok());
    let straight = there.is_some_and(|above| fs::canonicalize(above).is_ok_and(|real| real == above));
    if !straight || private_dir(path).is_err() {
        return false;
    }
    let probe = path.join(".probe");
    let writable = File::create(&probe).is_ok();
    let _ = fs::remove_file(&probe);
    writable
}

/// A root that holds no system is a disk that is not mounted, not a host without configuration.
fn check_is_system(host: &Host) -> Result<()> {
    if host.facts.products.is_empty() && host.facts.os.is_none() && !host.has_name() {
        let message = format!(
            "{}: there is no system here: no product, no os-release, no host name",
            host.root().display()
        );
        return Err(Fault::new(FaultKind::Usage, message).hint("is it mounted?").into());
    }
    Ok(())
}

/// A name that the primary store does not have, and the newest snapshot of this host there.
fn next_id(
    host: &Host,
    primary: &dyn Store,
    problems: &mut Vec<Problem>,
) -> Result<(SnapshotId, Option<Parent>)> {
    let mut id = SnapshotId::new(&host.facts.node, host.now.timestamp())
        .with_context(|| format!("the host name '{}' cannot name a snapshot", host.facts.node))?;
    let ids: Vec<SnapshotId> = primary.list(Some(id.host()))?.into_iter().map(|found| found.id).collect();
    while ids.contains(&id) {
        id = id.next();
    }
    let Some(before) = ids.into_iter().max() else { return Ok((id, None)) };
    if before > id {
        let what = format!("the clock says {}, but the newest snapshot is {before}", id.at());
        problems
            .push(Problem::warning(what).hint("set the clock; until then this snapshot is not the `latest`"));
    }
    let parent = match snapshots::head(primary, &before) {
        Ok(head) => Some(Parent { id: before, sha256: head.manifest_sha256 }),
        Err(error) => {
            problems.push(Problem::warning(format!("the snapshot before this one is damaged: {error:#}")));
            None
        }
    };
    Ok((id, parent))
}

fn draft(
    host: &Host,
    config: &Config,
    request: &Request,
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
        counts: Counts::default(),
        outcome: Outcome::Ok,
        trigger: request.trigger,
        parent,
        note: request.note.clone(),
        selection: request.selection.words(),
        protected: request.protect,
    })
}

/// The codec as it will really run. Errors: `Usage`, in the words of the configuration.
pub fn compression(config: &Config) -> Result<Compression> {
    let Backup { compression, compression_mode, compression_level, compression_threads, .. } = &config.backup;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = match compression_threads {
        0 => u32::try_from(processors).unwrap_or(1).min(THREADS_MAX),
        n => (*n).min(THREADS_LIMIT),
    };
    codec::settle(compression, compression_mode.as_deref(), *compression_level, threads).map_err(|error| {
        match error.downcast::<Fault>() {
            Ok(fault) => Fault { message: format!("backup 'main': {fault}"), ..fault }.into(),
            Err(error) => error,
        }
    })
}

fn write(
    host: &Host,
    sources: &Sources,
    draft: Snapshot,
    spool: &Path,
    problems: Vec<Problem>,
    say: &dyn Fn(&str),
) -> Result<Snapshot> {
    let id = draft.id.clone();
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(spool)?;
    let mut intake = Intake {
        root: host.root().to_owned(),
        owners: Owners::of(host.root()),
        writer: Writer::new(file, draft)?,
        linked: HashMap::new(),
        buffer: Vec::new(),
        problems,
    };
    let commands = Commands::new(outputs_of(&sources.items, host));
    let left = std::thread::scope(|scope| {
        for _ in 0..COMMANDS_AT_ONCE.min(commands.todo.len()) {
            scope.spawn(|| commands.work(host.exec.as_ref()));
        }
        let mut last = "";
        let left = collect::walk(&sources.scan(host), &sources.items, &mut |item, piece| {
            if last != item.id {
                last = item.id;
                say(item.title);
            }
            intake.take(item, piece)
        });
        if left.is_err() {
            commands.stop.store(true, Ordering::Relaxed);
        }
        left
    })?;
    let outputs = intake.outputs(commands, host.now.timestamp().as_second())?;
    intake.problems.extend(left.problems);
    if intake.writer.entries() == 0 {
        let fault =
            Fault::new(FaultKind::Usage, "nothing on this host is selected; there is nothing to save");
        return Err(fault.hint("`pbx-config catalog` shows what each item finds here").into());
    }
    let index = Index {
        format: FORMAT,
        id,
        facts: host.facts.clone(),
        entries: Vec::new(),
        outputs,
        absent: left.absent,
        problems: intake.problems,
    };
    intake.writer.finish(index)
}

/// Turns pieces into members.
struct Intake {
    root: PathBuf,
    owners: Owners,
    writer: Writer,
    /// First name of every file that has several.
    linked: HashMap<(u64, u64), Name>,
    buffer: Vec<u8>,
    problems: Vec<Problem>,
}

impl Intake {
    fn take(&mut self, item: &'static Item, piece: &Piece) -> Result<()> {
        match piece {
            Piece::File { path, stat } => self.disk(item, path, stat),
            Piece::Pve { path, node } => {
                let kind = if node.data.is_some() { Kind::File } else { Kind::Dir };
                let entry = self.pve_entry(item, path, kind, node.mode(), node.mtime);
                self.bytes(entry, node.data.as_deref().unwrap_or_default())
            }
            Piece::Database { path, data } => {
                let mut entry = self.pve_entry(item, path, Kind::File, 0o600, 0);
                (entry.gid, entry.group) = (0, self.owners.group(0));
                if let Ok(stat) = files::lstat(&self.root.join(path)) {
                    entry.mtime = stat.mtime;
                }
                self.bytes(entry, data)
            }
        }
    }

    fn bytes(&mut self, mut entry: Entry, data: &[u8]) -> Result<()> {
        self.limit_xattrs(&mut entry);
        entry.size = data.len() as u64;
        self.writer.append(entry, &mut &*data)?;
        Ok(())
    }

    /// As pmxcfs shows it: root, group www-data.
    fn pve_entry(&self, item: &Item, path: &Path, kind: Kind, mode: u32, mtime: i64) -> Entry {
        const WWW_DATA: &str = "www-data";
        const WWW_DATA_GID: u32 = 33;
        let gid = self.owners.gid(WWW_DATA).unwrap_or(WWW_DATA_GID);
        Entry {
            item: item.id.to_owned(),
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid,
            owner: self.owners.user(0),
            group: WWW_DATA.to_owned(),
            mtime: Mtime(mtime, 0),
            size: 0,
            sha256: String::new(),
            link: None,
            secret: item.secret && kind != Kind::Dir,
            xattrs: Vec::new(),
        }
    }

    fn disk_entry(&self, item: &Item, path: &Path, kind: Kind, stat: &Stat) -> Entry {
        Entry {
            item: item.id.to_owned(),
            path: path.into(),
            kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            owner: self.owners.user(stat.uid),
            group: self.owners.group(stat.gid),
            mtime: stat.mtime,
            size: 0,
            sha256: String::new(),
            link: None,
            secret: item.secret && kind != Kind::Dir,
            xattrs: Vec::new(),
        }
    }

    fn disk(&mut self, item: &'static Item, path: &Path, stat: &Stat) -> Result<()> {
        let files::Node::Kept(kind) = stat.node else { return Ok(()) };
        let full = self.root.join(path);
        let mut entry = self.disk_entry(item, path, kind, stat);
        match kind {
            Kind::File => return self.file(item, path, &full),
            Kind::Symlink => match fs::read_link(&full) {
                Ok(target) => entry.link = Some(Name::new(target.as_os_str().as_bytes())),
                Err(error) => return self.lost(path, &error),
            },
            Kind::Dir => match files::path_xattrs(&full) {
                Ok(xattrs) => entry.xattrs = xattrs,
                Err(error) => self.without_xattrs(path, &error),
            },
            Kind::Hardlink => {}
        }
        self.bytes(entry, &[])
    }

    fn file(&mut self, item: &'static Item, path: &Path, full: &Path) -> Result<()> {
        let (mut file, mut stat) = match files::open_read(full) {
            Ok(opened) => opened,
            Err(error) => return self.lost(path, &error),
        };
        if let Some(first) = self.linked.get(&(stat.dev, stat.ino)) {
            let mut entry = self.disk_entry(item, path, Kind::Hardlink, &stat);
            entry.link = Some(first.clone());
            return self.bytes(entry, &[]);
        }
        let xattrs = files::file_xattrs(&file).unwrap_or_else(|error| {
            self.without_xattrs(path, &error);
            Vec::new()
        });
        if stat.size > SMALL_BYTES {
            return self.large(item, path, file, &stat, xattrs);
        }
        let mut tries = 1;
        loop {
            self.buffer.clear();
            let read = read_all(&mut file, stat.size, &mut self.buffer);
            let after = file.metadata().map(|meta| Stat::from(&meta));
            let (Ok(()), Ok(after)) = (&read, &after) else {
                let error = read.err().or(after.err()).unwrap_or_else(|| std::io::Error::other("unreadable"));
                return self.lost(path, &error);
            };
            let stable =
                (after.mtime, after.size) == (stat.mtime, stat.size) && self.buffer.len() as u64 == stat.size;
            if stable {
                break;
            }
            if tries == READ_TRIES {
                self.changed(path);
                break;
            }
            tries += 1;
            match files::open_read(full) {
                Ok(opened) => (file, stat) = opened,
                Err(error) => return self.lost(path, &error),
            }
        }
        let mut entry = self.disk_entry(item, path, Kind::File, &stat);
        entry.xattrs = xattrs;
        self.remember_links(&stat, &entry.path);
        let data = std::mem::take(&mut self.buffer);
        let written = self.bytes(entry, &data);
        self.buffer = data;
        written
    }

    fn large(
        &mut self,
        item: &Item,
        path: &Path,
        mut file: File,
        stat: &Stat,
        xattrs: Vec<crate::model::index::Xattr>,
    ) -> Result<()> {
        let mut entry = self.disk_entry(item, path, Kind::File, stat);
        entry.size = stat.size;
        entry.xattrs = xattrs;
        self.limit_xattrs(&mut entry);
        self.remember_links(stat, &entry.path);
        let fit = self.writer.append(entry, &mut file)?;
        let after = file.metadata().map(|meta| Stat::from(&meta));
        let unchanged = after.is_ok_and(|after| (after.mtime, after.size) == (stat.mtime, stat.size));
        if fit == Fit::Short {
            let what = format!("/{}: could not be read to its end; the rest is zeros", shown(path));
            self.problems.push(Problem::error(what).hint("check the disk, then run the backup again"));
        } else if !unchanged {
            self.changed(path);
        }
        Ok(())
    }

    /// A header has room for so much; some file systems give more.
    fn limit_xattrs(&mut self, entry: &mut Entry) {
        if entry.xattrs.iter().map(|xattr| xattr.value.len()).sum::<usize>() > XATTRS_MAX_BYTES {
            entry.xattrs.clear();
            let error = std::io::Error::other("they are too large");
            self.without_xattrs(entry.path.as_path(), &error);
        }
    }

    fn remember_links(&mut self, stat: &Stat, path: &Name) {
        if stat.nlink > 1 {
            self.linked.insert((stat.dev, stat.ino), path.clone());
        }
    }

    /// A file that cannot be taken is a problem of that file, never the end of the run.
    fn lost(&mut self, path: &Path, error: &std::io::Error) -> Result<()> {
        let what = format!("/{}: {}", shown(path), cause(error));
        self.problems.push(match error.kind() {
            std::io::ErrorKind::NotFound => {
                Problem::notice(format!("/{}: vanished before it was read", shown(path)))
            }
            _ => Problem::warning(what).hint("it is not in the snapshot"),
        });
        check_stopped()
    }

    fn changed(&mut self, path: &Path) {
        let what = format!("/{}: changed while it was read", shown(path));
        self.problems.push(Problem::warning(what).hint("the snapshot holds a mix of two states of it"));
    }

    fn without_xattrs(&mut self, path: &Path, error: &std::io::Error) {
        let what = format!("/{}: its extended attributes cannot be read: {}", shown(path), cause(error));
        self.problems.push(Problem::warning(what).hint("it is saved without ACLs and capabilities"));
    }

    /// Adds what the commands said.
    fn outputs(&mut self, commands: Commands, now: i64) -> Result<Vec<Output>> {
        let mut outputs = Vec::new();
        let said = commands.said.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (mut output, said) in commands.todo.into_iter().zip(said) {
            let Some(said) = said else { continue };
            let said = match said {
                Ok(said) => said,
                Err(error) => {
                    self.problems.push(Problem::notice(format!("{}: {error:#}", output.argv.join(" "))));
                    continue;
                }
            };
            output.status = said.status.to_string();
            let stderr = &said.stderr[said.stderr.len().saturating_sub(STDERR_KEPT_BYTES)..];
            output.stderr = mask(String::from_utf8_lossy(stderr).trim()).into_owned();
            self.command_problem(&output, said.status, said.truncated);
            let item = catalog::items().find(|item| item.id == output.item);
            if let (Some(item), false) = (item, said.stdout.is_empty()) {
                let path = Path::new(STATE_DIR).join(&output.name);
                let mut entry = self.pve_entry(item, &path, Kind::File, 0o600, now);
                (entry.gid, entry.group) = (0, String::new());
                self.bytes(entry, &said.stdout)?;
            }
            outputs.push(output);
        }
        Ok(outputs)
    }

    /// A tool that says no is noted beside its output; one that does not end is worth a look.
    fn command_problem(&mut self, output: &Output, status: Status, truncated: bool) {
        let argv = output.argv.join(" ");
        match status {
            Status::TimedOut => self.problems.push(
                Problem::warning(format!("`{argv}`: no end within {} s", COMMAND_LIMIT.as_secs()))
                    .hint("something it asks hangs: a storage, a disk or a daemon"),
            ),
            _ if truncated => {
                let what = format!("`{argv}`: its output was cut at {OUTPUT_MAX_BYTES} bytes");
                self.problems.push(Problem::notice(what));
            }
            Status::Exit(0) => {}
            Status::Exit(_) | Status::Signal(_) => {
                log::debug!("`{argv}`: {} {}", output.status, output.stderr);
            }
        }
    }
}

/// Reads to the end: one call for a file of the announced size.
fn read_all(file: &mut File, size: u64, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    // One byte more than announced: a short count tells the end without a second call.
    let want = usize::try_from(size).unwrap_or(usize::MAX - 1) + 1;
    buffer.resize(want, 0);
    let mut filled = 0;
    loop {
        match file.read(&mut buffer[filled..]) {
            Ok(n) => {
                filled += n;
                if n == 0 || filled < want {
                    break;
                }
                // It grew: more than twice a small file is not worth chasing, the caller tries again.
                if filled as u64 > SMALL_BYTES * 2 {
                    break;
                }
                buffer.resize(filled + 64 * 1024, 0);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// The commands of the rows, still without their answers.
pub fn outputs_of(items: &[&'static Item], host: &Host) -> Vec<Output> {
    let with_node = |word: &&str| word.replace("{node}", &host.facts.node);
    items
        .iter()
        .filter_map(|item| match item.source {
            Source::Output { argv, name } => Some(Output {
                item: item.id.to_owned(),
                name: name.to_owned(),
                argv: argv.iter().map(with_node).collect(),
                status: String::new(),
                stderr: String::new(),
            }),
            _ => None,
        })
        .collect()
}

/// Commands run beside the collecting, several at a time.
struct Commands {
    todo: Vec<Output>,
    said: Mutex<Vec<Option<Result<crate::sys::exec::Output>>>>,
    next: AtomicUsize,
    stop: AtomicBool,
    deadline: Instant,
}

impl Commands {
    fn new(todo: Vec<Output>) -> Self {
        let said = Mutex::new(todo.iter().map(|_| None).collect());
        Self {
            todo,
            said,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            deadline: Instant::now() + STATE_LIMIT,
        }
    }

    fn work(&self, exec: &dyn Exec) {
        while !self.stop.load(Ordering::Relaxed) && check_stopped().is_ok() {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(output) = self.todo.get(n) else { return };
            let left = self.deadline.saturating_duration_since(Instant::now());
            let said = if left.is_zero() {
                Some(Err(anyhow::anyhow!("not run: all commands together took {} s", STATE_LIMIT.as_secs())))
            } else {
                let cmd = Cmd {
                    argv: output.argv.clone(),
                    limit: COMMAND_LIMIT.min(left),
                    max_bytes: OUTPUT_MAX_BYTES,
                };
                exec.run(&cmd).transpose()
            };
            if let Ok(mut all) = self.said.lock()
                && let Some(place) = all.get_mut(n)
            {
                *place = said;
            }
        }
    }
}

/// A catalogue row with what it finds on this host, for `catalog`.
pub fn rows(host: &Host) -> impl Iterator<Item = &'static Item> {
    select::of_host(&host.facts)
}
