//! The tar in an old archive, as an index of ours and its members.
//!
//! The predecessor replaced files that equal an earlier one by links, and noted which in a file that may stand
//! behind them. So it is read twice: once for what there is, once to hand it out, where each such link is a file
//! with the contents of the one it leads to, and its own mode and owner.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, PathBuf};

use anyhow::{Context, Result, ensure};
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::places::{DEDUP, output, place};
use super::tar::{self, TarEvent};
use crate::archive::codec::CODECS;
use crate::archive::guard::{Bounded, Hashing, READ_BYTES};
use crate::archive::seal::{self, HeldFileKey, Opening};
use crate::archive::tar::TarMember;
use crate::model::facts::Facts;
use crate::model::index::{CommandOutput, ENTRIES_MAX, Entry, EntryKind, Index, Mtime, Name};
use crate::model::legacy::LegacyName;
use crate::model::problem::Problem;
use crate::model::snapshot::{FORMAT, Snapshot};
use crate::sys::hex;
use crate::sys::process::signals::check_stopped;

/// Far more than any host's configuration, homes included.
const UNPACKED_MAX_BYTES: u64 = 1 << 40;
/// The memory for all entries until they are the index: then each of them takes as much again.
const KEPT_MAX_BYTES: usize = 40 << 20;
/// The memory of an entry in a map of places, beside its name.
const PLACE_BYTES: usize = 64;
/// The list of replaced files: some 100 bytes each.
const DEDUP_MAX_BYTES: u64 = 8 << 20;
/// Entries of one kind that are told one by one; more are counted.
const TOLD_MAX: usize = 100;
/// A file up to here is held while its copies are handed out; for a larger one the archive is read once more.
const HELD_MAX_BYTES: u64 = 8 << 20;
/// Copies of one larger file; each costs a pass.
const PASSES_MAX: usize = 64;
/// A zone is 14 hours off at most, and a run may last.
const CLOCKS_APART_MAX_SECONDS: u64 = 24 * 3600;
/// The row of outputs and of what no row of the catalogue claims; the task knows better ones.
pub const ITEM: &str = "proxsave";

type Visit<'a> = dyn FnMut(&TarMember, &mut dyn Read) -> Result<()> + 'a;

/// Reads all of it. `row` tells the catalogue's row of a path and whether it is secret.
/// Errors: a stored byte is not what the checksum says, a damaged or hostile tar, what `visit` says.
pub fn read(
    file: &File,
    payload_at: u64,
    snapshot: &Snapshot,
    held: Option<&HeldFileKey>,
    row: &dyn Fn(&Name) -> (&'static str, bool),
    visit: &mut Visit,
) -> Result<Index> {
    let source = Source { file, payload_at, snapshot, held };
    let mut survey = Survey::default();
    source.pass(&mut |met, content| survey.take(met, content))?;
    let plan = survey.settle()?;
    plan.hand_out(&source, visit)?;
    Ok(plan.index(snapshot, row))
}

struct Source<'a> {
    file: &'a File,
    payload_at: u64,
    snapshot: &'a Snapshot,
    held: Option<&'a HeldFileKey>,
}

impl Source<'_> {
    /// Every byte is hashed, unsealed, unpacked and taken apart; the hash is compared at the end.
    fn pass(&self, visit: &mut dyn FnMut(TarEvent, &mut dyn Read) -> Result<()>) -> Result<()> {
        let payload = &self.snapshot.payload;
        let mut file = self.file;
        file.seek(SeekFrom::Start(self.payload_at))?;

        let mut stored = Hashing::new(file.take(payload.size));
        let input = BufReader::with_capacity(READ_BYTES, &mut stored);
        let walked = match self.held {
            None => self.unpack(input, visit),
            Some(held) => Opening::new(input).and_then(|opening| opening.open(held)).and_then(|mut clear| {
                self.unpack(BufReader::with_capacity(READ_BYTES, &mut clear), visit)?;
                seal::end(&mut clear)
            }),
        };

        // What was changed is told as such, whatever it does to the reading.
        check_stopped()?;
        let (_, sha256) = stored.finish()?;
        ensure!(hex(&sha256) == payload.sha256, "its SHA-256 is not what its checksum says");
        walked
    }

    fn unpack(
        &self,
        input: impl Read,
        visit: &mut dyn FnMut(TarEvent, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let name = &self.snapshot.codec.name;
        let codec = CODECS.iter().find(|codec| codec.name == name).context("an unknown compression")?;
        let decoded = (codec.decode)(Box::new(input))?;
        let mut bounded = Bounded {
            inner: decoded,
            left: UNPACKED_MAX_BYTES,
            over: "it unpacks to more than any host has",
        };
        tar::read(&mut bounded, visit)?;
        // To the very end, so that what is cut off behind the tar shows too.
        io::copy(&mut bounded, &mut io::sink()).context("damaged archive")?;
        Ok(())
    }
}

/// Entries of the archive while it streams by, by their path there.
#[derive(Default)]
struct Survey {
    /// In the archive's order; the hash is a file's.
    members: Vec<(TarMember, [u8; 32])>,
    places: HashMap<Name, usize>,
    dedup: Option<Vec<Deduped>>,
    /// Devices, pipes and the like: the first ones, and how many there are.
    odd: Vec<Name>,
    odd_count: usize,
    kept: usize,
}

/// A line of the list of replaced files.
#[derive(Debug, Deserialize)]
struct Deduped {
    path: String,
    mode: u32,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
}

impl Survey {
    fn take(&mut self, met: TarEvent, content: &mut dyn Read) -> Result<()> {
        check_stopped()?;
        let member = match met {
            TarEvent::Odd(path) => {
                self.odd_count += 1;
                self.odd.extend((self.odd_count <= TOLD_MAX).then_some(path));
                return Ok(());
            }
            TarEvent::Member(member) => member,
        };
        // Its name is in `places`, too, and it becomes an entry of the index.
        self.kept += size_of::<(TarMember, [u8; 32])>() + 2 * member.memory() + PLACE_BYTES;
        ensure!(
            self.members.len() < ENTRIES_MAX && self.kept <= KEPT_MAX_BYTES,
            "has more entries, or longer ones, than any host"
        );

        let mut hashing = Hashing::new(content);
        if member.path.as_bytes() == DEDUP.as_bytes() {
            ensure!(
                member.kind == EntryKind::File && member.size <= DEDUP_MAX_BYTES,
                "{}: is not a valid file",
                member.path
            );
            let mut text = Vec::new();
            hashing.read_to_end(&mut text)?;
            let listed = serde_json::from_slice::<Option<Vec<Deduped>>>(&text);
            self.dedup =
                Some(listed.with_context(|| format!("{}: is damaged", member.path))?.unwrap_or_default());
        }

        let (size, sha256) = hashing.finish()?;
        ensure!(size == member.size, "{}: cut short", member.path);
        let at = self.members.len();
        ensure!(self.places.insert(member.path.clone(), at).is_none(), "{}: is in it twice", member.path);
        self.members.push((member, sha256));
        Ok(())
    }

    /// Decides what each member is for the reader. Errors: links and folders that lead where they must not.
    fn settle(mut self) -> Result<Plan> {
        let odd = self
            .odd
            .iter()
            .map(|path| Problem::notice(format!("{path}: is a device or pipe in the archive, skipped")));
        let mut problems: Vec<Problem> = odd.collect();
        problems.extend(and_more(self.odd_count, "devices or pipes in the archive, skipped"));
        self.check_folders()?;

        let copies = if let Some(listed) = self.dedup.take() {
            self.make_copies(listed, &mut problems)?
        } else {
            problems.extend(self.unlisted_copies());
            BTreeMap::new()
        };

        let large = |(first, of): (&usize, &Vec<usize>)| {
            if self.members[*first].0.size > HELD_MAX_BYTES { of.len() } else { 0 }
        };
        ensure!(
            copies.iter().map(large).max().unwrap_or(0) <= PASSES_MAX,
            "has more than {PASSES_MAX} copies of one large file"
        );
        Ok(Plan { members: self.members, places: self.places, copies, problems })
    }

    /// Makes files of the links that the list names. Returns the places of the copies, by the place of their file.
    fn make_copies(
        &mut self,
        listed: Vec<Deduped>,
        problems: &mut Vec<Problem>,
    ) -> Result<BTreeMap<usize, Vec<usize>>> {
        let mut copies: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut missing = 0;
        for one in listed {
            let path = Name::new(one.path.trim_start_matches("./").trim_start_matches('/'));
            let Some(&at) = self.places.get(&path) else {
                missing += 1;
                let what = || format!("{path}: is listed as a replaced file but is missing");
                problems.extend((missing <= TOLD_MAX).then(|| Problem::notice(what())));
                continue;
            };
            let first = self.original(at)?;
            let (size, sha256) = (self.members[first].0.size, self.members[first].1);
            let (member, hash) = &mut self.members[at];
            member.kind = EntryKind::File;
            member.link = None;
            member.mode = one.mode & 0o7777;
            member.uid = one.uid.unwrap_or(member.uid);
            member.gid = one.gid.unwrap_or(member.gid);
            member.size = size;
            *hash = sha256;

            copies.entry(first).or_default().push(at);
        }
        problems.extend(and_more(missing, "listed as replaced files, but missing"));
        Ok(copies)
    }

    /// Finds the file that a listed link stands for. Errors: what the list says and the archive does not.
    fn original(&self, at: usize) -> Result<usize> {
        let link = &self.members[at].0;
        ensure!(
            link.kind == EntryKind::Symlink,
            "{}: is listed as a replaced file, but is not one",
            link.path
        );
        let target = link.link.as_ref().and_then(|target| resolve(&link.path, target));
        let first = target.as_ref().and_then(|target| self.places.get(target)).copied();
        first
            .filter(|first| self.members[*first].0.kind == EntryKind::File)
            .with_context(|| format!("{}: replaces a file that is not in the archive", link.path))
    }

    /// Tells of links that may be copies, when no list says which are.
    fn unlisted_copies(&self) -> Option<Problem> {
        let unnoted = self.links_to_members();
        let what = format!(
            "{unnoted} links point to files of the same archive; versions before 2026 replaced equal files by such links, and did not record which"
        );
        let problem = Problem::notice(what).hint("compare them with the host before you use them");
        (unnoted > 0).then_some(problem)
    }

    /// Nothing is reached through a link or a file.
    fn check_folders(&self) -> Result<()> {
        for (member, _) in &self.members {
            for above in member.path.as_path().ancestors().skip(1).map(Name::from) {
                let kind = self.places.get(&above).map(|at| self.members[*at].0.kind);
                ensure!(
                    kind.is_none_or(|kind| kind == EntryKind::Dir),
                    "{}: is below {above}, which is not a directory",
                    member.path
                );
            }
            if let (EntryKind::Hardlink, Some(first)) = (member.kind, &member.link) {
                let target = self.places.get(first).map(|at| &self.members[*at].0);
                ensure!(
                    target.is_some_and(|target| target.kind == EntryKind::File),
                    "{}: is a hard link to {first}, which is not a file of the archive",
                    member.path
                );
            }
        }

        Ok(())
    }

    fn links_to_members(&self) -> usize {
        let leads = |member: &TarMember| {
            let target = member.link.as_ref().filter(|target| !target.as_bytes().starts_with(b"/"));
            let target = target.and_then(|target| resolve(&member.path, target));
            target.is_some_and(|target| {
                self.places.get(&target).is_some_and(|at| self.members[*at].0.kind == EntryKind::File)
            })
        };
        self.members.iter().filter(|(member, _)| member.kind == EntryKind::Symlink && leads(member)).count()
    }
}

/// Counts those that were not told one by one.
fn and_more(count: usize, what: &str) -> Option<Problem> {
    (count > TOLD_MAX).then(|| Problem::notice(format!("{} more are {what}", count - TOLD_MAX)))
}

/// Resolves a relative link by its text only; None when it leads outside.
fn resolve(link: &Name, target: &Name) -> Option<Name> {
    let mut path: PathBuf = link.as_path().parent()?.to_owned();
    for part in target.as_path().components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(Name::from(path.as_path()))
}

/// The entries to hand out, and how.
struct Plan {
    members: Vec<(TarMember, [u8; 32])>,
    places: HashMap<Name, usize>,
    /// Files that stand for others too.
    copies: BTreeMap<usize, Vec<usize>>,
    problems: Vec<Problem>,
}

impl Plan {
    /// Each member once, the copies right behind the file that they equal.
    fn hand_out(&self, source: &Source, visit: &mut Visit) -> Result<()> {
        let copies: HashSet<usize> = self.copies.values().flatten().copied().collect();
        source.pass(&mut |met, content| {
            check_stopped()?;
            let Some((at, member)) = self.known(&met)? else { return Ok(()) };
            if copies.contains(&at) {
                return Ok(());
            }
            let Some(of) = self.copies.get(&at).filter(|_| member.size <= HELD_MAX_BYTES) else {
                return self.one(at, content, visit);
            };
            let mut held = Vec::new();
            content.read_to_end(&mut held)?;
            for at in std::iter::once(&at).chain(of) {
                self.one(*at, &mut &held[..], visit)?;
            }
            Ok(())
        })?;

        let large: Vec<(&usize, &Vec<usize>)> =
            self.copies.iter().filter(|(first, _)| self.members[**first].0.size > HELD_MAX_BYTES).collect();
        for n in 0..large.iter().map(|(_, of)| of.len()).max().unwrap_or(0) {
            source.pass(&mut |met, content| {
                check_stopped()?;
                let Some((at, _)) = self.known(&met)? else { return Ok(()) };
                match self.copies.get(&at).and_then(|of| of.get(n)) {
                    Some(copy) if self.members[at].0.size > HELD_MAX_BYTES => self.one(*copy, content, visit),
                    _ => Ok(()),
                }
            })?;
        }
        Ok(())
    }

    /// The member as it was met the first time. Errors: the file changed meanwhile.
    fn known(&self, met: &TarEvent) -> Result<Option<(usize, &TarMember)>> {
        let TarEvent::Member(member) = met else { return Ok(None) };
        let at = *self.places.get(&member.path).context("it changed while it was read")?;
        Ok(Some((at, &self.members[at].0)))
    }

    /// At its place among ours; folders of outputs are none of the host's.
    fn one(&self, at: usize, content: &mut dyn Read, visit: &mut Visit) -> Result<()> {
        let member = &self.members[at].0;
        let Some(path) = place(&member.path) else { return Ok(()) };
        if output(&path).is_some() && member.kind != EntryKind::File {
            return Ok(());
        }
        visit(&TarMember { path, link: link(member), ..member.clone() }, content)
    }

    /// Folders before what is in them.
    fn index(self, snapshot: &Snapshot, row: &dyn Fn(&Name) -> (&'static str, bool)) -> Index {
        let (mut entries, mut outputs) = (Vec::new(), Vec::new());
        for (member, sha256) in self.members {
            let Some(path) = place(&member.path) else { continue };
            let said = output(&path);
            if said.is_some() && member.kind != EntryKind::File {
                continue;
            }
            let (item, secret) = if said.is_some() { (ITEM, true) } else { row(&path) };
            if let Some(name) = said {
                let status = "recorded by the legacy program".to_owned();
                let (item, argv, stderr) = (ITEM.to_owned(), Vec::new(), String::new());
                outputs.push(CommandOutput { item, name, argv, status, stderr });
            }
            entries.push(Entry {
                item: item.to_owned(),
                kind: member.kind,
                mode: member.mode,
                uid: member.uid,
                gid: member.gid,
                owner: String::new(),
                group: String::new(),
                mtime: Mtime(member.mtime, 0),
                size: member.size,
                sha256: if member.kind == EntryKind::File { hex(&sha256) } else { String::new() },
                link: link(&member),
                secret: secret && member.kind != EntryKind::Dir,
                xattrs: Vec::new(),
                path,
            });
        }

        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut problems = self.problems;
        problems.push(
            Problem::notice("the legacy program rewrote line ends and JSON in some files, and copied config.db while it was in use")
                .hint("the contents are as they were saved; on the host they may have been different"),
        );
        problems.extend(other_time(snapshot));

        let facts = Facts {
            node: snapshot.node.clone(),
            products: snapshot.products.clone(),
            cluster: snapshot.cluster.clone(),
            ..Facts::default()
        };

        Index {
            format: FORMAT,
            id: snapshot.id.clone(),
            facts,
            entries,
            outputs,
            absent: Vec::new(),
            problems,
        }
    }
}

/// The name has the host's local time, the manifest has one with its zone; more than a day apart, one of them is wrong.
fn other_time(snapshot: &Snapshot) -> Option<Problem> {
    let legacy = snapshot.legacy.as_ref()?;
    let named = LegacyName::parse(&legacy.archive)?.local(&TimeZone::UTC)?;
    let is_far = named.as_second().abs_diff(snapshot.id.at().as_second()) > CLOCKS_APART_MAX_SECONDS;
    let what = || {
        format!(
            "its manifest says that it is of {}, its name says {}",
            legacy.created_at,
            named.strftime("%F")
        )
    };
    is_far.then(|| Problem::notice(what()).hint("the manifest's time counts, also for `prune --legacy`"))
}

/// The first name of a file is told by its place among ours; where a symbolic link leads is its contents.
fn link(member: &TarMember) -> Option<Name> {
    match member.kind {
        EntryKind::Hardlink => member.link.as_ref().and_then(place),
        _ => member.link.clone(),
    }
}
