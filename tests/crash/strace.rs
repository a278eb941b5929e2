//! strace as an instrument: what a run asks of the kernel, call by call, and the kernel's answer changed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const HELP: &str = "these tests need strace and the right to trace: `apt-get install strace`; in a container \
                    allow ptrace (docker: --cap-add SYS_PTRACE); /proc/sys/kernel/yama/ptrace_scope below 3";

/// strace, writing to `log`. Fails, and says what to do, where it cannot change what a call answers.
pub fn strace(log: &Path) -> Command {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let works = *WORKS.get_or_init(|| {
        let mut trial = crate::common::tool("strace");
        trial.args(["-qq", "-o", "/dev/null", "-e", "inject=chdir:error=EIO", "sh", "-c", "cd / || exit 7"]);
        trial.output().is_ok_and(|done| done.status.code() == Some(7))
    });
    assert!(works, "{HELP}");
    let mut command = crate::common::tool("strace");
    command.args(["-y", "-s", "0", "-o"]).arg(log);
    command
}

/// One system call of a log.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    /// The how manieth of its name in the run, from 1.
    pub nth: usize,
    pub args: Vec<String>,
    pub result: String,
}

/// They change something, or ask for it to be kept.
const CHANGES: &str = "
    creat mkdir mkdirat mknod mknodat write pwrite64 writev pwritev pwritev2 fsync fdatasync
    sync_file_range syncfs rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat
    rmdir chmod fchmod fchmodat chown lchown fchown fchownat truncate ftruncate fallocate
    copy_file_range sendfile splice utimensat setxattr lsetxattr fsetxattr removexattr fremovexattr
    lremovexattr flock ioctl mount
";
const ONLY_READS: &str = "
    stat fstat lstat newfstatat fstatat64 statx statfs fstatfs access faccessat faccessat2 read
    pread64 readv preadv lseek getdents64 readlink readlinkat getxattr lgetxattr fgetxattr listxattr
    llistxattr flistxattr close fcntl dup mmap fadvise64 readahead execve getcwd chdir fchdir poll
    getrandom connect inotify_add_watch preadv2
";

fn is_one_of(name: &str, words: &str) -> bool {
    words.split_whitespace().any(|word| word == name)
}

impl Call {
    pub fn changes(&self) -> bool {
        let opens = ["open", "openat", "openat2"].contains(&self.name.as_str());
        let made = self.args.iter().any(|arg| arg.contains("O_CREAT") || arg.contains("O_TRUNC"));
        if opens { made } else { is_one_of(&self.name, CHANGES) }
    }

    pub fn failed(&self) -> bool {
        self.result.starts_with('-') || self.result.starts_with('?')
    }

    /// The absolute paths that it names, by a string or by a descriptor.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut dir: Option<PathBuf> = None;
        for arg in &self.args {
            if let Some(name) = quoted(arg) {
                let path = dir.take().unwrap_or_default();
                paths.push(if name.is_empty() { path } else { path.join(name) });
            } else {
                paths.extend(dir.take());
                dir = descriptor(arg);
            }
        }
        paths.extend(dir);
        paths.retain(|path| path.is_absolute());
        paths
    }

    /// The path of its first argument or of its descriptor.
    pub fn path(&self) -> PathBuf {
        self.paths().into_iter().next().unwrap_or_default()
    }

    pub fn touches(&self, folder: &Path) -> bool {
        self.paths().iter().any(|path| path.starts_with(folder))
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} no. {}: {}({}) = {}", self.name, self.nth, self.name, self.args.join(", "), self.result)
    }
}

fn quoted(arg: &str) -> Option<&str> {
    arg.strip_prefix('"').map(|rest| rest.split('"').next().unwrap_or_default())
}

/// `4</path>`, `AT_FDCWD</path>`, `4</path>(deleted)`.
fn descriptor(arg: &str) -> Option<PathBuf> {
    let (number, path) = arg.split_once('<')?;
    let number = number == "AT_FDCWD" || number.parse::<u32>().is_ok();
    (number && path.starts_with('/')).then(|| PathBuf::from(path.split('>').next().unwrap_or_default()))
}

/// The calls of a log, in order.
pub fn calls(log: &str) -> Vec<Call> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    log.lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(|line| {
            let (name, rest) = line.split_once('(').unwrap_or_else(|| panic!("no call: {line}"));
            let (args, result) = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("no result: {line}"));
            let args = args.trim_end();
            let nth = seen.entry(name.to_owned()).or_default();
            *nth += 1;
            let args = split(args.strip_suffix(')').unwrap_or(args));
            Call { name: name.to_owned(), nth: *nth, args, result: result.to_owned() }
        })
        .collect()
}

/// At the commas that stand in no string and no bracket.
fn split(text: &str) -> Vec<String> {
    let (mut args, mut arg, mut depth, mut string) = (Vec::new(), String::new(), 0_i32, false);
    for c in text.chars() {
        match c {
            '"' => string = !string,
            '{' | '[' | '(' if !string => depth += 1,
            '}' | ']' | ')' if !string => depth -= 1,
            ',' if !string && depth == 0 => {
                args.push(std::mem::take(&mut arg).trim().to_owned());
                continue;
            }
            _ => {}
        }
        arg.push(c);
    }
    args.push(arg.trim().to_owned());
    args
}

/// Every call of a log that changes something, or asks for it to be kept. A call on one of `folders` that nobody
/// sorted yet is no call to pass over.
pub fn changes(calls: &[Call], folders: &[&Path]) -> Vec<Call> {
    for call in calls.iter().filter(|call| folders.iter().any(|folder| call.touches(folder))) {
        let known = call.changes() || call.name.starts_with("open") || is_one_of(&call.name, ONLY_READS);
        assert!(known, "tests/crash/strace.rs: does it change something? {call}");
    }
    calls.iter().filter(|call| call.changes() && !call.failed()).cloned().collect()
}

#[test]
fn a_log_is_read_as_it_was_written() {
    let log = "openat(AT_FDCWD</>, \"/a/b\", O_WRONLY|O_CREAT, 0600) = 4</a/b>\n\
               --- SIGTERM {si_signo=SIGTERM} ---\n\
               write(4</a/b>, \"\"..., 7)           = 7\n\
               write(1<pipe:[7]>, \"\"..., 7) = 7\n\
               openat2(5</a>, \"c\", {flags=O_RDONLY|O_CREAT, mode=0600}, 24) = -1 EIO (Input/output error)\n\
               linkat(AT_FDCWD</>, \"/a/b\", AT_FDCWD</>, \"/a/d\", 0) = 0\n\
               fsync(4</a/b>(deleted)) = ?\n+++ killed by SIGKILL +++\n";
    let calls = calls(log);
    let told: Vec<_> =
        calls.iter().map(|call| (call.nth, call.changes(), call.failed(), call.paths())).collect();
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            (1, true, false, paths(&["/a/b"])),
            (1, true, false, paths(&["/a/b"])),
            (2, true, false, paths(&[])),
            (1, true, true, paths(&["/a/c"])),
            (1, true, false, paths(&["/a/b", "/a/d"])),
            (1, true, true, paths(&["/a/b"])),
        ]
    );
}
