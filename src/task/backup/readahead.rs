//! Readahead on a cold disk: a second walk runs before the first and has the kernel fetch the next files, from
//! several threads, so that the disk sees more than one request at a time. It decides nothing and its failures are
//! ignored: the walk that counts meets them again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::catalog::Item;
use crate::model::index::EntryKind;
use crate::sys::fs::files::{self, FileNode};
use crate::task::scan::walk::{self, Found, Scan};

/// More gained nothing on the disks that were measured.
const THREADS: usize = 6;
/// The most that the second walk is ahead of the first: more might be dropped by the kernel before it is used.
const AHEAD_MAX_BYTES: u64 = 64 << 20;
/// The kernel itself reads ahead in a file that is longer.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// The least that a file counts, so that a host of empty files has a distance too.
const FILE_MIN_BYTES: u64 = 4 << 10;
const QUEUE_FILES: usize = 256;
const PAUSE: Duration = Duration::from_millis(1);

/// The bytes that the walk that counts has passed, each file as `weight` has it.
#[derive(Default)]
pub struct ReadaheadProgress {
    bytes: AtomicU64,
    ended: AtomicBool,
}

impl ReadaheadProgress {
    pub fn passed(&self, found: &Found) {
        self.bytes.fetch_add(weight(found), Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

fn weight(found: &Found) -> u64 {
    match found {
        Found::File { stat, .. } if stat.node == FileNode::Kept(EntryKind::File) => {
            stat.size.clamp(FILE_MIN_BYTES, FILE_MAX_BYTES)
        }
        _ => 0,
    }
}

/// Walks ahead of `progress` until it ends or everything is fetched.
pub fn run(scan: &Scan, items: &[&'static Item], progress: &ReadaheadProgress) {
    let (queue, files) = sync_channel::<PathBuf>(QUEUE_FILES);
    let files = Mutex::new(files);

    std::thread::scope(|scope| {
        let fetchers = (0..THREADS)
            .filter(|_| std::thread::Builder::new().spawn_scoped(scope, || fetch(&files)).is_ok());
        if fetchers.count() == 0 {
            return;
        }
        let mut here = 0;
        // The error is only the way out.
        let _ = walk::walk(scan, items, &mut |_, found| {
            let weight = weight(found);
            if let Found::File { path, .. } = found
                && weight > 0
                && here >= progress.bytes.load(Ordering::Relaxed)
            {
                while !progress.has_ended() && here > progress.bytes.load(Ordering::Relaxed) + AHEAD_MAX_BYTES
                {
                    std::thread::sleep(PAUSE);
                }
                queue.send(scan.host.root().join(path))?;
            }
            here += weight;
            anyhow::ensure!(!progress.has_ended());
            Ok(())
        });
        drop(queue);
    });
}

fn fetch(files: &Mutex<Receiver<PathBuf>>) {
    loop {
        let next = files.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(path) = next else { return };
        if let Ok((file, _)) = files::open_read(&path) {
            files::fetch(&file, FILE_MAX_BYTES);
        }
    }
}
