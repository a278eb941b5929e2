//! Who is typing: the login behind this process, told apart from another login of the same person and from one that
//! was there before; and the machine's boot, which a power cut ends.

use std::fs;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use super::processes;

/// What the kernel says for "none".
const UNSET: u32 = u32::MAX;

/// Seconds: so much later may a process have begun than the kernel says.
const TICK: f64 = 0.01;

/// A login.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoginSession {
    /// The kernel's number of a login through PAM; sudo, su, tmux and screen keep it. Many containers have none.
    pub audit: Option<u32>,
    /// Number of the controlling terminal, 0 for none.
    pub tty: i64,
    /// The session leader, 0 for one outside of this container.
    pub leader: i64,
    /// Seconds of uptime when it began; None where that cannot be seen.
    #[serde(default)]
    pub since: Option<f64>,
}

/// Whether a session shows that somebody could log in after a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newness {
    New,
    /// It is the one that it is compared with.
    Same,
    /// Another, that was there before the moment: an open connection lives on where no new one is let in.
    Older,
    /// A service, or a shell put into a container from outside: nobody logged in to this system.
    NoLogin,
}

impl LoginSession {
    pub fn current() -> Self {
        let stat = Stat::of("self").unwrap_or_default();
        let audit = number("/proc/self/sessionid");
        let since = match audit {
            Some(audit) => login_since(audit),
            None => leader_since(stat.leader),
        };
        Self { audit, tty: stat.tty, leader: stat.leader, since }
    }

    /// Tells how new this login is to `first`, at a moment in seconds of uptime.
    pub fn newness(&self, first: &Self, moment: f64) -> Newness {
        match (self.audit, first.audit) {
            (Some(here), Some(there)) if here == there => return Newness::Same,
            (None, Some(_)) => return Newness::NoLogin,
            // Without the kernel's number: by leader and terminal.
            (None, None) if self.leader == 0 => return Newness::NoLogin,
            (None, None) if self.leader == first.leader || self.tty != 0 && self.tty == first.tty => {
                return Newness::Same;
            }
            _ => {}
        }
        match self.since {
            Some(since) if since + TICK > moment => Newness::New,
            Some(_) => Newness::Older,
            None => Newness::NoLogin,
        }
    }
}

/// Of `proc_pid_stat(5)`.
#[derive(Debug, Default, PartialEq)]
struct Stat {
    leader: i64,
    tty: i64,
    /// Clock ticks of uptime.
    started: i64,
}

impl Stat {
    fn of(process: &str) -> Option<Self> {
        Some(Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?))
    }

    fn parse(stat: &str) -> Self {
        const LEADER: usize = 3;
        const TTY: usize = 4;
        const STARTED: usize = 19;
        // The name in parentheses may hold anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |n: usize| fields.get(n).and_then(|field| field.parse().ok()).unwrap_or_default();
        Self { leader: number(LEADER), tty: number(TTY), started: number(STARTED) }
    }

    #[allow(clippy::cast_precision_loss)] // seconds
    fn since(&self) -> f64 {
        const USUAL: i64 = 100;
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(USUAL);
        self.started as f64 / ticks as f64
    }
}

/// A login is as old as its oldest process: a shell that sudo or tmux starts is none.
fn login_since(audit: u32) -> Option<f64> {
    let pids = processes::pids(Path::new("/proc"));
    let of_login = pids.filter(|pid| number(&format!("/proc/{pid}/sessionid")) == Some(audit));
    of_login.filter_map(|pid| Some(Stat::of(&pid.to_string())?.since())).reduce(f64::min)
}

fn leader_since(leader: i64) -> Option<f64> {
    // It may have ended; then this process tells when at the latest.
    let of_leader = (leader != 0).then(|| Stat::of(&leader.to_string()).or_else(|| Stat::of("self")));
    of_leader.flatten().map(|stat| stat.since())
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok().filter(|number| *number != UNSET)
}

/// The person who runs it, for the record of what was done.
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

/// Seconds since the boot, those of a sleep too; no clock that somebody sets. The kernel's own, as times of processes
/// are: in a container /proc/uptime may be another.
#[allow(clippy::cast_precision_loss)] // seconds
pub fn uptime() -> f64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    const ARMED_AT: f64 = 100.0;

    fn session(audit: Option<u32>, tty: i64, leader: i64, since: f64) -> LoginSession {
        LoginSession { audit, tty, leader, since: Some(since) }
    }

    #[test]
    fn a_login_is_new_when_it_is_another_and_began_later() {
        let first = session(Some(3), 1, 1, 50.0);
        let seen = |audit, tty, leader, since| session(audit, tty, leader, since).newness(&first, ARMED_AT);
        assert_eq!(seen(Some(4), 1, 1, 101.0), Newness::New);
        // A new window of tmux, sudo, setsid.
        assert_eq!(seen(Some(3), 2, 2, 101.0), Newness::Same);
        // A second window that was open all the time.
        assert_eq!(seen(Some(2), 2, 2, 60.0), Newness::Older);
        // systemd-run, or nsenter from outside.
        assert_eq!(seen(None, 2, 2, 101.0), Newness::NoLogin);
        // What a service armed, a login keeps.
        let service = session(None, 0, 7, 99.0);
        assert_eq!(session(Some(4), 0, 9, 101.0).newness(&service, ARMED_AT), Newness::New);
    }

    #[test]
    fn without_numbers_of_logins_leader_and_terminal_tell_and_none_is_taken_from_outside() {
        let first = session(None, 1, 5, 50.0);
        let seen = |tty, leader, since| session(None, tty, leader, since).newness(&first, ARMED_AT);
        assert_eq!(seen(1, 6, 101.0), Newness::Same);
        assert_eq!(seen(0, 5, 101.0), Newness::Same);
        assert_eq!(seen(2, 6, 101.0), Newness::New);
        assert_eq!(seen(0, 6, 101.0), Newness::New);
        assert_eq!(seen(2, 6, 99.0), Newness::Older);
        assert_eq!(seen(2, 0, 101.0), Newness::NoLogin);
        let outside = LoginSession { since: None, ..session(None, 0, 0, 0.0) };
        assert_eq!(outside.newness(&outside, ARMED_AT), Newness::NoLogin);
        assert_eq!(seen_by(&outside, 2, 6), Newness::New);
    }

    fn seen_by(first: &LoginSession, tty: i64, leader: i64) -> Newness {
        session(None, tty, leader, 101.0).newness(first, ARMED_AT)
    }

    #[test]
    fn a_process_that_begins_a_session_leads_it_and_has_no_terminal() {
        let before = uptime();
        let output = Command::new("setsid").args(["--wait", "cat", "/proc/self/stat"]).output().unwrap();
        let stat = String::from_utf8(output.stdout).unwrap();
        let own: i64 = stat.split_whitespace().next().unwrap().parse().unwrap();
        let stat = Stat::parse(&stat);
        assert_eq!((stat.leader, stat.tty), (own, 0));
        // Ticks are hundredths.
        assert!(stat.since() > before - 0.02 && stat.since() < uptime() + 0.02, "{stat:?} {before}");
        let stat = Stat::parse("7 (a) b ) S 1 7 5 34817 7 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 9");
        assert_eq!(stat, Stat { leader: 5, tty: 34817, started: 12345 });
        assert_eq!(Stat::parse(""), Stat::default());
    }

    #[test]
    fn this_process_runs_since_a_boot() {
        assert_eq!(boot_id().len(), 36);
        assert!(uptime() > 0.0);
    }
}
