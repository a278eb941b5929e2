//! Commands of the host: found in fixed folders, run with a clean environment, bounded in time and output.
//! The only seam of the tests; everything else is a real tree under a root.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::signals::check_stopped;

/// Directories that tools are looked for in; never the caller's PATH, which a vzdump hook does not even have.
pub const TOOL_DIRS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Time that a command may outlive SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// Time that it may outlive SIGKILL: in the midst of a request to a file system that hangs, for ever.
const KILL_GRACE: Duration = Duration::from_millis(500);
/// Time that a finished command's pipes may stay open in the hands of its children.
const PIPE_GRACE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct Cmd {
    /// `argv[0]` is a plain tool name.
    pub argv: Vec<String>,
    /// Beyond the clean environment; the place for what no process list may show.
    pub env: Vec<(String, String)>,
    /// Fed to standard input, which is empty without it.
    pub stdin: Option<Vec<u8>>,
    pub limit: Duration,
    /// Of standard output, and of standard error; what comes beyond is dropped and said.
    pub max_bytes: usize,
    /// Goes on within its limit when the program is asked to end: for the last words of a run.
    pub even_when_stopped: bool,
}

impl Cmd {
    /// Enough for what a tool has to say.
    const MAX_BYTES: usize = 1 << 20;

    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>, limit: Duration) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            stdin: None,
            limit,
            max_bytes: Self::MAX_BYTES,
            even_when_stopped: false,
        }
    }
}

/// The environment and the input may hold secrets.
impl std::fmt::Debug for Cmd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cmd").field("argv", &self.argv).field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default)]
pub struct ProcessOutput {
    pub status: ToolStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// More came than `max_bytes`.
    pub truncated: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ToolStatus {
    Exit(i32),
    Signal(i32),
    #[default]
    TimedOut,
}

impl std::fmt::Display for ToolStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

pub trait Exec: Send + Sync {
    /// Runs a command to its end or its limit. None: the host has no such tool.
    /// Errors only when a tool that is there cannot be started.
    fn run(&self, cmd: &Cmd) -> Result<Option<ProcessOutput>>;

    /// Reports whether the tools speak of the host: not so for a system that is only mounted.
    fn is_of_host(&self) -> bool {
        true
    }
}

/// The running system's own tools.
pub struct System;

impl Exec for System {
    fn run(&self, cmd: &Cmd) -> Result<Option<ProcessOutput>> {
        let Some(tool) = cmd.argv.first().and_then(|name| find(name)) else { return Ok(None) };
        run_at(&tool, &cmd.argv[1..], cmd).map(Some)
    }
}

/// A system that is only mounted here: its tools would speak of this machine, so there are none.
pub struct NoTools;

impl Exec for NoTools {
    fn run(&self, _: &Cmd) -> Result<Option<ProcessOutput>> {
        Ok(None)
    }

    fn is_of_host(&self) -> bool {
        false
    }
}

fn find(name: &str) -> Option<PathBuf> {
    TOOL_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Runs the program at `tool` with the environment and the limits that `System` gives.
pub fn run_at(tool: &Path, args: &[String], cmd: &Cmd) -> Result<ProcessOutput> {
    let mut child = Command::new(tool)
        .args(args)
        .env_clear()
        .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C"), ("HOME", "/root")])
        .envs(cmd.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(if cmd.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", tool.display()))?;
    let group = Group(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)));
    let mut pipes =
        [Pipe::new(child.stdout.take(), cmd.max_bytes), Pipe::new(child.stderr.take(), cmd.max_bytes)];

    // A thread of its own: who reads nothing, or writes before it reads, must not keep us.
    let feeder = child.stdin.take().zip(cmd.stdin.clone()).map(|(mut pipe, data)| {
        std::thread::Builder::new().spawn(move || {
            // A tool that has read enough closes its end.
            let _ = pipe.write_all(&data);
        })
    });
    let feeder = feeder.transpose().with_context(|| format!("cannot feed {}", tool.display()))?;
    let status = watch(&mut child, &mut pipes, &group, cmd)?;
    drop(group);
    if let Some(feeder) = feeder.filter(std::thread::JoinHandle::is_finished) {
        let _ = feeder.join();
    }

    let [stdout, stderr] = pipes;
    Ok(ProcessOutput {
        status,
        truncated: stdout.dropped || stderr.dropped,
        stdout: stdout.data,
        stderr: stderr.data,
    })
}

/// Becomes another program, with the arguments, environment and files that this one was given.
/// Returns only when it cannot be started.
pub fn become_program(path: &Path, args: &[std::ffi::OsString]) -> std::io::Error {
    Command::new(path).args(args).exec()
}

/// Opens the program that runs, whatever lies at its path by now.
pub fn own_program() -> std::io::Result<File> {
    File::open("/proc/self/exe")
}

/// Starts an open program that outlives this one and its terminal, with nothing else of ours open. Errors: there is
/// no `setsid`, or it failed; that it could start the program it does not say.
pub fn start_in_own_session(program: &File, args: &[String]) -> std::io::Result<()> {
    let no_setsid = || std::io::Error::new(std::io::ErrorKind::NotFound, "there is no setsid");
    let mut command = Command::new(find("setsid").ok_or_else(no_setsid)?);
    // Unlike the program's own descriptor it is inherited.
    let inherited = nix::unistd::dup(program)?;
    let program = format!("/proc/self/fd/{}", inherited.as_raw_fd());
    command.arg("--fork").arg(program).args(args).env_clear().current_dir("/");
    command.envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C"), ("HOME", "/root")]);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("setsid: {status}"))) }
}

/// The process group of a command; killed when we are done, so that no child of it stays behind.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

fn watch(child: &mut Child, pipes: &mut [Pipe; 2], group: &Group, cmd: &Cmd) -> Result<ToolStatus> {
    let mut deadline = Instant::now() + cmd.limit;
    let mut timed_out = false;
    let mut ended: Option<ExitStatus> = None;

    loop {
        let open = drain(pipes, Duration::from_millis(if ended.is_some() { 5 } else { 20 }))?;
        if ended.is_none() {
            ended = child.try_wait()?;
            if ended.is_some() {
                deadline = deadline.min(Instant::now() + PIPE_GRACE);
            }
        }
        if ended.is_some() && !open {
            break;
        }
        // Who stops us stops what we wait for.
        if Instant::now() < deadline && (timed_out || cmd.even_when_stopped || check_stopped().is_ok()) {
            continue;
        }
        if ended.is_some() {
            break;
        }
        if timed_out {
            let _ = killpg(group.0, Signal::SIGKILL);
            let killed = Instant::now();
            while child.try_wait()?.is_none() && killed.elapsed() < KILL_GRACE {
                std::thread::sleep(Duration::from_millis(2));
            }
            break;
        }
        timed_out = true;
        deadline = Instant::now() + TERM_GRACE;
        let _ = killpg(group.0, Signal::SIGTERM);
    }

    Ok(match ended {
        _ if timed_out => ToolStatus::TimedOut,
        Some(status) => match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
            (Some(code), _) => ToolStatus::Exit(code),
            (None, signal) => ToolStatus::Signal(signal.unwrap_or_default()),
        },
        None => ToolStatus::TimedOut,
    })
}

/// Reads what is there, waiting at most `wait`. True while a pipe is open.
fn drain(pipes: &mut [Pipe; 2], wait: Duration) -> Result<bool> {
    if pipes.iter().all(|pipe| pipe.file.is_none()) {
        std::thread::sleep(wait.min(Duration::from_millis(2)));
        return Ok(false);
    }

    {
        let mut fds: Vec<PollFd> =
            pipes.iter().filter_map(Pipe::fd).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
    }
    for pipe in pipes.iter_mut() {
        pipe.read();
    }
    Ok(pipes.iter().any(|pipe| pipe.file.is_some()))
}

trait Source: Read + AsFd {}
impl<T: Read + AsFd> Source for T {}

struct Pipe {
    file: Option<Box<dyn Source>>,
    data: Vec<u8>,
    max: usize,
    dropped: bool,
}

impl Pipe {
    fn new<T: Source + 'static>(file: Option<T>, max: usize) -> Self {
        let file = file.map(|file| {
            // Without O_NONBLOCK a read after poll could wait for ever when another reader was faster.
            let _ = fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
            Box::new(file) as Box<dyn Source>
        });
        Self { file, data: Vec::new(), max, dropped: false }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.as_fd())
    }

    fn read(&mut self) {
        let mut buffer = [0; 8 * 1024];

        // A command that prints without end must not keep us from looking at the clock.
        for _ in 0..64 {
            let Some(file) = &mut self.file else { return };
            match file.read(&mut buffer) {
                Ok(0) => self.file = None,
                Ok(n) => {
                    let room = self.max.saturating_sub(self.data.len());
                    self.data.extend_from_slice(&buffer[..n.min(room)]);
                    self.dropped |= n > room;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => self.file = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sh(script: &str, limit_ms: u64, max_bytes: usize) -> ProcessOutput {
        let cmd = Cmd { max_bytes, ..Cmd::new(["sh", "-c", script], Duration::from_millis(limit_ms)) };
        System.run(&cmd).unwrap().unwrap()
    }

    #[test]
    fn the_streams_and_the_status_are_kept_apart() {
        let output = sh("echo out; echo err >&2; exit 3", 5_000, 1024);
        assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!(output.status, ToolStatus::Exit(3));
    }

    #[test]
    fn a_tool_that_is_not_there_is_none() {
        let cmd = Cmd::new(["no-such-tool"], Duration::ZERO);
        assert!(System.run(&cmd).unwrap().is_none());
    }

    #[test]
    fn a_command_that_ignores_sigterm_ends_all_the_same() {
        let start = Instant::now();
        let output = sh("trap '' TERM; while :; do sleep 1; done", 100, 1024);
        assert_eq!(output.status, ToolStatus::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(6));
    }

    #[test]
    fn output_beyond_the_limit_is_dropped_and_said() {
        let output = sh("head -c 1000000 /dev/zero", 5_000, 1000);
        assert_eq!(output.stdout.len(), 1000);
        assert!(output.truncated);
        assert_eq!(output.status, ToolStatus::Exit(0));
    }

    #[test]
    fn a_child_that_keeps_the_pipe_does_not_keep_us() {
        let start = Instant::now();
        let output = sh("sleep 30 & echo started", 20_000, 1024);
        assert_eq!(output.stdout, b"started\n");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn what_is_fed_arrives_and_what_is_not_read_keeps_nobody() {
        let fed = |script: &str| {
            let cmd = Cmd::new(["sh", "-c", script], Duration::from_secs(5));
            let cmd = Cmd { stdin: Some(vec![b'x'; 300_000]), env: vec![("WORD".into(), "y".into())], ..cmd };
            System.run(&cmd).unwrap().unwrap()
        };
        assert_eq!(fed("cat; printf $WORD").stdout.len(), 300_001);
        assert_eq!(fed("exit 4").status, ToolStatus::Exit(4));
    }

    #[test]
    fn the_environment_is_clean() {
        let output = sh("env | cut -d= -f1 | sort | tr '\\n' ' '", 5_000, 1024);
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "HOME LC_ALL PATH PWD");
    }
}
