//! Who is typing: the login behind this process, told apart from another login of the same person; and the
//! machine's boot, which a power cut ends.

use std::fs;

use serde::{Deserialize, Serialize};

/// What the kernel says for "none".
const UNSET: u32 = u32::MAX;

/// A login. Two are the same when the kernel's audit number is; without one, when terminal and session are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Session {
    /// Of a login through PAM; sudo, su, tmux and screen keep it.
    pub audit: Option<u32>,
    /// Number of the controlling terminal, 0 for none.
    pub tty: i64,
    /// The session leader, 0 for one outside of this container.
    pub leader: i64,
}

impl Session {
    pub fn current() -> Self {
        let (leader, tty) = leader_and_tty(&fs::read_to_string("/proc/self/stat").unwrap_or_default());
        Self { audit: number("/proc/self/sessionid"), tty, leader }
    }

    /// Only somebody who could log in anew has another session.
    pub fn is_another_than(&self, first: &Self) -> bool {
        match (self.audit, first.audit) {
            (Some(here), Some(there)) => here != there,
            _ if self.tty != 0 && first.tty != 0 => self.tty != first.tty,
            _ => self.leader != first.leader,
        }
    }
}

/// From `proc_pid_stat(5)`.
fn leader_and_tty(stat: &str) -> (i64, i64) {
    // The name in parentheses may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_whitespace().skip(3).map(|field| field.parse().unwrap_or_default());
    (fields.next().unwrap_or_default(), fields.next().unwrap_or_default())
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok().filter(|number| *number != UNSET)
}

/// For the record of what was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Who {
    pub uid: u32,
    /// Who logged in, whatever sudo and su made of it since.
    pub login_uid: Option<u32>,
    pub sudo_user: Option<String>,
}

impl Who {
    pub fn current() -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            login_uid: number("/proc/self/loginuid"),
            sudo_user: std::env::var("SUDO_USER").ok(),
        }
    }
}

/// Another one after each boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Seconds since the boot; no clock that somebody sets.
pub fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    #[test]
    fn one_login_is_the_same_whatever_its_terminal() {
        let session = |audit, tty, leader| Session { audit, tty, leader };
        assert!(!session(Some(3), 1, 1).is_another_than(&session(Some(3), 2, 2)));
        assert!(session(Some(4), 1, 1).is_another_than(&session(Some(3), 1, 1)));
        assert!(!session(None, 1, 5).is_another_than(&session(Some(3), 1, 6)));
        assert!(session(None, 2, 5).is_another_than(&session(None, 1, 5)));
        assert!(session(None, 0, 5).is_another_than(&session(None, 1, 6)));
        assert!(!session(None, 0, 5).is_another_than(&session(None, 0, 5)));
    }

    #[test]
    fn a_process_that_begins_a_session_leads_it_and_has_no_terminal() {
        let output = Command::new("setsid").args(["--wait", "cat", "/proc/self/stat"]).output().unwrap();
        let stat = String::from_utf8(output.stdout).unwrap();
        let own: i64 = stat.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(leader_and_tty(&stat), (own, 0));
        assert_eq!(leader_and_tty("7 (a) b ) S 1 7 5 34817 7"), (5, 34817));
        assert_eq!(leader_and_tty(""), (0, 0));
    }

    #[test]
    fn this_process_runs_since_a_boot() {
        assert_eq!(boot_id().len(), 36);
        assert!(uptime() > 0.0);
    }
}
