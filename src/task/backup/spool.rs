//! The snapshot file of a run before it is on a store: written, and read back.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;

use anyhow::Result;

use super::prepare::Draft;
use super::readahead::{self, ReadaheadProgress};
use crate::archive::keys::Keys;
use crate::archive::reader::Archive;
use crate::archive::writer::{Members, Writer, Written};
use crate::catalog::Item;
use crate::model::index::Index;
use crate::model::problem::{Fault, FaultKind};
use crate::model::snapshot::FORMAT;
use crate::sys::host::Host;
use crate::sys::process::signals::check_stopped;
use crate::sys::process::threads;
use crate::task::scan::archiver::Archiver;
use crate::task::scan::commands::Inquiry;
use crate::task::scan::coverage;
use crate::task::scan::sources::Sources;
use crate::task::scan::walk::{self, Scan, ScanResult};

/// Reads the sources and writes the snapshot file, to its fsync. `say` is given the title of each item.
/// Errors: `Usage` when nothing is selected; the file cannot be written, for `cannot_write` to explain; a stop.
pub fn write(
    host: &Host,
    sources: &Sources,
    draft: Draft,
    file: File,
    say: &dyn Fn(&str),
) -> Result<Written> {
    let Draft { snapshot, protection, problems, is_whole } = draft;
    let id = snapshot.id.clone();
    let mut archiver = Archiver::new(host, Writer::new(file, snapshot, protection)?, problems)?;
    let inquiry = Inquiry::new(&sources.items, host, &sources.apis);
    let scan = sources.scan(host);
    let left = read_sources(&scan, &sources.items, &inquiry, &mut archiver, say)?;

    if is_whole {
        let coverage = coverage::look(&scan, &sources.items, &left)?;
        archiver.writer.unexplained(coverage.map(|coverage| coverage.unexplained));
    }

    let outputs = archiver.outputs(inquiry, host.now.as_second())?;
    archiver.problems.extend(left.problems);
    walk::shorten(&mut archiver.problems);
    if archiver.writer.entries() == 0 {
        let fault = Fault::usage("nothing on this host is selected; there is nothing to save");
        return Err(fault.hint("`pbx-config catalog` shows what each item finds here").into());
    }

    let index = Index {
        format: FORMAT,
        id,
        facts: host.facts.clone(),
        entries: Vec::new(),
        outputs,
        absent: left.absent,
        problems: archiver.problems,
    };
    archiver.writer.finish(index)
}

/// Walks the host into the archive while its tools are asked; from the first file that is not in memory on, a second
/// walk reads ahead.
fn read_sources<W: Members>(
    scan: &Scan,
    items: &[&'static Item],
    inquiry: &Inquiry,
    archiver: &mut Archiver<W>,
    say: &dyn Fn(&str),
) -> Result<ScanResult> {
    let progress = &ReadaheadProgress::default();
    thread::scope(|scope| {
        for _ in 0..inquiry.workers() {
            threads::start(scope, || inquiry.work());
        }

        let mut reads_ahead = false;
        let mut last = "";
        let left = walk::walk(scan, items, &mut |item, found| {
            progress.passed(found);
            if archiver.is_cold && !reads_ahead {
                reads_ahead = true;
                // Only a thread of its own can be ahead of this one.
                let _ =
                    thread::Builder::new().spawn_scoped(scope, move || readahead::run(scan, items, progress));
            }
            if last != item.id {
                last = item.id;
                say(item.title);
            }
            archiver.take(item, found)
        });

        progress.end();
        if left.is_err() {
            inquiry.stop();
        }
        left
    })
}

/// Reads the file as any reader would. `read`: the result of reading it while it was written; then the file is proven
/// by its hash, for nobody here can open it any more.
/// Errors: `Verification` for whatever it is, even when nothing of it can be recognised.
pub fn read_back(spool: &Path, keys: Keys, read: Option<Result<Index>>) -> Result<Index> {
    let read = Archive::open(spool).and_then(|archive| {
        let mut archive = archive.with_keys(keys);
        match read {
            None => archive.read(spool, &mut |_, _| check_stopped()),
            Some(read) => archive.check_payload(spool).and(read),
        }
    });

    check_stopped()?;
    read.map_err(|error| match cause(&error) {
        Some(io::ErrorKind::NotFound) => went_away(spool, error),
        _ => error.context(
            Fault::new(
                FaultKind::Verification,
                "the snapshot that was just written does not read back; it was discarded",
            )
            .hint("check the memory and the disk of this host"),
        ),
    })
}

fn cause(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.downcast_ref::<io::Error>().map(io::Error::kind)
}

/// Explains a failed write.
pub fn cannot_write(spool: &Path, error: anyhow::Error) -> anyhow::Error {
    match cause(&error) {
        Some(io::ErrorKind::NotFound) => went_away(spool, error),
        Some(_) => error.context(format!("cannot write {}", spool.display())),
        None => error,
    }
}

fn went_away(spool: &Path, error: anyhow::Error) -> anyhow::Error {
    let fault = Fault::failed(format!("{}: disappeared while it was in use", spool.display()));
    error.context(fault.hint("run it again, and exclude that directory from other cleanups"))
}
