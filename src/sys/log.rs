//! Talk of the program: `log` records to standard error (with `<N>` prefixes for the journal) and to syslog,
//! secrets masked. Data of a verb never goes this way.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use syslog::{Facility, Formatter3164, LogFormat, Severity};

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
        let text = mask(&text);
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

const MASK: &str = "***";
/// Words after which (and `=` or `:`) a value is a secret.
const SECRET_KEYS: [&str; 8] =
    ["password", "passwd", "passphrase", "secret", "token", "private-key", "authorization", "apikey"];
/// Beginnings that are secrets in themselves.
const SECRET_HEADS: [&str; 3] = ["AGE-SECRET-KEY-", "PVEAPIToken=", "PBSAPIToken="];

/// Replaces what looks like a secret. A last line of defence: our own values never get as far as a text.
pub fn mask(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let suspicious = SECRET_KEYS.iter().any(|key| lower.contains(key))
        || SECRET_HEADS.iter().any(|head| text.contains(head))
        || text.contains("://");
    if !suspicious {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut hide_next = false;
    for word in text.split_inclusive(char::is_whitespace) {
        let body = word.trim_end();
        let space = &word[body.len()..];
        if hide_next && !body.is_empty() {
            out.push_str(MASK);
            hide_next = body.eq_ignore_ascii_case("bearer") || body.eq_ignore_ascii_case("basic");
        } else {
            let (shown, hide) = mask_word(body);
            out.push_str(&shown);
            hide_next = hide;
        }
        out.push_str(space);
    }
    Cow::Owned(out)
}

/// A word with its secret replaced, and whether the next word is the secret.
fn mask_word(word: &str) -> (String, bool) {
    if let Some((head, at)) = SECRET_HEADS.iter().find_map(|head| Some((head, word.find(head)?))) {
        return (format!("{}{head}{MASK}", &word[..at]), false);
    }
    let lower = word.to_ascii_lowercase();
    for key in SECRET_KEYS {
        let Some(at) = lower.find(key) else { continue };
        // "/etc/pam.d/passwd: permission denied" speaks of a file.
        if lower[..at].contains('/') && !lower[..at].contains(['=', '?']) {
            continue;
        }
        let end = at + key.len();
        let rest = word[end..].trim_start_matches('"');
        if let Some(value) = rest.strip_prefix(['=', ':']) {
            let kept = &word[..word.len() - value.len()];
            return if value.is_empty() { (word.to_owned(), true) } else { (format!("{kept}{MASK}"), false) };
        }
    }
    // user:secret@ in an address. The last @ before the path ends the secret; when there is none, a secret
    // with a slash in it may lie before the first one behind.
    if let Some((scheme, rest)) = word.split_once("://")
        && let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest)
        && let Some(at) = authority.rfind('@').or_else(|| rest.find('@'))
        && let (credentials, host) = (&rest[..at], &rest[at + 1..])
        && let Some((user, _)) = credentials.split_once(':')
    {
        return (format!("{scheme}://{user}:{MASK}@{host}"), false);
    }
    (word.to_owned(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_every_usual_shape() {
        for (text, masked) in [
            ("password=hunter2 user=bob", "password=*** user=bob"),
            ("Password: hunter2", "Password: ***"),
            ("\"token\":\"abc\"", "\"token\":***"),
            ("Authorization: Bearer abc.def", "Authorization: *** ***"),
            ("https://bob:pw@host/x", "https://bob:***@host/x"),
            ("https://bob:p@ss@host", "https://bob:***@host"),
            ("https://bob:p@ss@host/x@y?z@a", "https://bob:***@host/x@y?z@a"),
            ("https://bob:p/ss@host/x", "https://bob:***@host/x"),
            ("key AGE-SECRET-KEY-1ABC", "key AGE-SECRET-KEY-***"),
            ("PVEAPIToken=root@pam!x=0-1", "PVEAPIToken=***"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }

    #[test]
    fn ordinary_talk_is_left_alone() {
        for text in ["snapshot pve1/2026 written", "https://example.org/x", "/etc/pam.d/passwd: gone"] {
            assert_eq!(mask(text), text);
        }
    }
}
