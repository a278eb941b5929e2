//! Talk of the program: `log` records to standard error (with `<N>` prefixes for the journal) and to syslog,
//! secrets masked. Data of a verb never goes this way.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use syslog::{Facility, Formatter3164, LogFormat, Severity};

use super::mask::mask;
use crate::model::index::one_line;

/// A syslog daemon that does not read must not hold a run up.
const SYSLOG_LIMIT: Duration = Duration::from_millis(200);

/// Installs the logger; later calls change nothing. `level` is for standard error,
/// syslog gets what an admin looks for later (info and worse).
pub fn init(level: LevelFilter) {
    let journal = stderr_is_journal();
    // Nobody watches a service: its steps are looked up in the journal, which sorts by priority.
    let level = if journal && level == LevelFilter::Warn { LevelFilter::Info } else { level };
    // Under systemd standard error is the journal already; twice the same line helps nobody.
    let syslog = if journal { None } else { connect() };
    let logger = Logger { level, journal, terminal: std::io::stderr().is_terminal(), syslog };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level.max(LevelFilter::Info));
    }
}

struct Logger {
    level: LevelFilter,
    journal: bool,
    terminal: bool,
    syslog: Option<UnixDatagram>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Libraries have their own talk.
        metadata.target().starts_with("pbx_config")
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }

        let text = record.args().to_string();
        // Names of files and words of servers are in it: none of them begins a line or a sequence of its own.
        let text = one_line(&mask(&text));
        if record.level() <= self.level {
            let line = if self.journal {
                format!("<{}>{text}\n", priority(record.level()))
            } else if self.terminal && record.level() > Level::Warn {
                format!("{text}\n")
            } else {
                format!("{}: {text}\n", word(record.level()))
            };
            let _ = std::io::stderr().write_all(line.as_bytes());
        }

        if let (Some(socket), true) = (&self.syslog, record.level() <= Level::Info) {
            let _ = socket.send(&syslog_line(record.level(), &text));
        }
    }

    fn flush(&self) {}
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

/// Syslog priorities, as the journal reads them from a prefix.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn syslog_line(level: Level, text: &str) -> Vec<u8> {
    let formatter = Formatter3164 {
        facility: Facility::LOG_DAEMON,
        // The local daemon adds the host itself.
        hostname: None,
        process: "pbx-config".to_owned(),
        pid: std::process::id(),
    };
    let severity = match level {
        Level::Error => Severity::LOG_ERR,
        Level::Warn => Severity::LOG_WARNING,
        Level::Info => Severity::LOG_INFO,
        Level::Debug | Level::Trace => Severity::LOG_DEBUG,
    };
    let mut line = Vec::new();
    let _ = formatter.format(&mut line, severity, text);

    line
}

fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_write_timeout(Some(SYSLOG_LIMIT)).ok()?;
    socket.connect("/dev/log").ok()?;
    Some(socket)
}

/// systemd names the journal's socket as device:inode of standard error.
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|meta| named == format!("{}:{}", meta.dev(), meta.ino()))
}
