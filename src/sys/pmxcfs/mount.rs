//! The tree read file by file through the mount, in a child that can be given up. Not here: when that is needed.

use std::fs::{self, File};
use std::io::{BufRead, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{MAX_FILE_BYTES, MOUNT, PROBE_LIMIT, PmxcfsNode, TRIES, VIRTUAL, pick};
use crate::model::problem::Problem;
use crate::sys::host::Host;
use crate::sys::process::forked::{self, ChildResult};

const READ_LIMIT: Duration = Duration::from_secs(60);
const MAX_DEPTH: usize = 1024;
/// One FUSE request answers at most this much from one locked copy of a file.
const REQUEST_BYTES: usize = 128 * 1024;

#[derive(Serialize, Deserialize)]
enum Frame {
    Node { path: Vec<u8>, mtime: i64, size: Option<u64> },
    Failed { path: Vec<u8>, error: String },
    End,
}

/// Files of the mount, all of them within one limit.
pub(super) fn some_through_mount(mount: &Path, paths: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
    let (nodes, problems) = from_child(PROBE_LIMIT, |out| {
        for path in paths {
            send_file(mount, Path::new(path), 0, out)?;
        }
        Ok(())
    })?;
    if let Some(problem) = problems.into_iter().next() {
        bail!(problem.what);
    }
    Ok(pick(nodes, paths))
}

/// Runs `work` in a child that is killed at the limit, and returns the bytes that it sends.
fn from_child(
    limit: Duration,
    work: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<(Vec<PmxcfsNode>, Vec<Problem>)> {
    let answer = forked::run_raw(limit, |pipe| {
        let mut out = BufWriter::new(pipe);
        let _ = work(&mut out).and_then(|()| send(&mut out, &Frame::End)).and_then(|()| out.flush());
    })?;
    match answer {
        ChildResult::Finished(data) => receive(&data),
        ChildResult::TimedOut => bail!("{MOUNT}: no answer within {} s", limit.as_secs()),
    }
}

/// Reads the mount in a child, again while the daemon's change counters move.
pub(super) fn through_mount(host: &Host) -> Result<(Vec<PmxcfsNode>, Vec<Problem>)> {
    let mount = host.path(MOUNT);
    // A daemon that ends well leaves an empty folder behind, which is no tree.
    let version = || -> Result<Vec<u8>> {
        let found = some_through_mount(&mount, &[".version"])?.pop().flatten();
        found.with_context(|| format!("{MOUNT} is not mounted any more"))
    };
    let mut last = None;

    for _ in 0..TRIES {
        let before = version()?;
        let (nodes, problems) = from_child(READ_LIMIT, |out| send_folder(&mount, Path::new(""), 0, out))?;
        let unchanged = before == version()?;
        last = Some((nodes, problems));
        if unchanged {
            break;
        }
        if let Some((_, problems)) = &mut last {
            problems.push(Problem::warning("/etc/pve changed while it was read file by file"));
        }
    }
    last.context("/etc/pve: nothing read")
}

/// Sends a folder's entries, open and closed one by one: an open file would block the daemon's restart.
fn send_folder(mount: &Path, at: &Path, depth: usize, out: &mut impl Write) -> std::io::Result<()> {
    let dir = match fs::read_dir(mount.join(at)) {
        Ok(dir) => dir,
        Err(error) => return send(out, &failed(at, &error)),
    };
    let mut names = Vec::new();

    for entry in dir {
        match entry {
            Ok(entry) => names.push(entry.file_name()),
            // What is listed after it would be missing without a word.
            Err(error) => send(out, &failed(at, &error))?,
        }
    }

    names.sort_unstable();
    for name in names {
        let hidden = name.as_bytes().starts_with(b".fuse_hidden");
        if hidden || depth == 0 && VIRTUAL.iter().any(|known| name == *known) {
            continue;
        }
        let path = at.join(name);
        let bytes = path.as_os_str().as_bytes().to_vec();
        match patiently(|| fs::symlink_metadata(mount.join(&path))) {
            Ok(meta) if meta.is_dir() => {
                send(out, &Frame::Node { path: bytes, mtime: meta.mtime(), size: None })?;
                if depth < MAX_DEPTH {
                    send_folder(mount, &path, depth + 1, out)?;
                } else {
                    send(out, &failed(&path, &std::io::Error::other("its contents are nested too deeply")))?;
                }
            }
            Ok(meta) => send_file(mount, &path, meta.mtime(), out)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => send(out, &failed(&path, &error))?,
        }
    }
    Ok(())
}

fn send_file(mount: &Path, path: &Path, mtime: i64, out: &mut impl Write) -> std::io::Result<()> {
    match read_small(&mount.join(path)) {
        Ok(data) => {
            let (path, size) = (path.as_os_str().as_bytes().to_vec(), Some(data.len() as u64));
            send(out, &Frame::Node { path, mtime, size })?;
            out.write_all(&data)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => send(out, &failed(path, &error)),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Frame {
    Frame::Failed { path: path.as_os_str().as_bytes().to_vec(), error: error.to_string() }
}

/// One request where the file allows it.
fn read_small(path: &Path) -> std::io::Result<Vec<u8>> {
    patiently(|| {
        let file = File::open(path)?;
        let mut data = Vec::with_capacity(REQUEST_BYTES);
        file.take(MAX_FILE_BYTES).read_to_end(&mut data)?;
        Ok(data)
    })
}

/// Asks again when a rename over the file hides it for a moment.
fn patiently<T>(work: impl Fn() -> std::io::Result<T>) -> std::io::Result<T> {
    let mut tries = 0;
    loop {
        tries += 1;
        match work() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < 10 => {
                thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

fn send(out: &mut impl Write, frame: &Frame) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, frame)?;
    out.write_all(b"\n")
}

fn receive(mut data: &[u8]) -> Result<(Vec<PmxcfsNode>, Vec<Problem>)> {
    let mut nodes = Vec::new();
    let mut problems = Vec::new();
    loop {
        let mut line = Vec::new();
        data.read_until(b'\n', &mut line)?;
        match serde_json::from_slice(&line).context("/etc/pve: the reader died")? {
            Frame::End => break,
            Frame::Failed { path, error } => {
                problems
                    .push(Problem::warning(format!("/etc/pve/{}: {error}", String::from_utf8_lossy(&path))));
            }
            Frame::Node { path, mtime, size } => {
                let path = PathBuf::from(std::ffi::OsString::from_vec(path));
                let content = size.map(|size| {
                    let (content, rest) =
                        data.split_at_checked(usize::try_from(size)?).context("cut short")?;
                    data = rest;
                    Ok::<_, anyhow::Error>(content.to_vec())
                });
                nodes.push(PmxcfsNode { path, mtime, data: content.transpose()? });
            }
        }
    }

    nodes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok((nodes, problems))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_listed_or_lies_too_deep_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        let mut sent = Vec::new();
        send_folder(dir.path(), Path::new("gone"), 1, &mut sent).unwrap();
        send_folder(dir.path(), Path::new(""), MAX_DEPTH, &mut sent).unwrap();
        send(&mut sent, &Frame::End).unwrap();
        let (nodes, problems) = receive(&sent).unwrap();
        assert_eq!(nodes.len(), 1);
        let [gone, deep] = &problems[..] else { panic!("{problems:?}") };
        assert!(gone.what.contains("/etc/pve/gone: No such file"), "{}", gone.what);
        assert!(deep.what.contains("/etc/pve/deep: its contents are nested too deeply"), "{}", deep.what);
    }
}
