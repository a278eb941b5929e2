//! Problems of a run, its outcome, and the faults that end a command with an exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The hint of a file that a snapshot lacks although it is there.
pub const NOT_SAVED: &str = "it is not in the snapshot";

/// Removes Rust's "(os error 28)", which says nothing that the words before it do not.
pub fn without_errno(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |done, part| done + part.split_once(')').map_or(part, |(_, rest)| rest))
}

/// Weight of a problem. An admin can and should act on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Notice,
    Warning,
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing that went wrong, named, with what to do. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub severity: Severity,
    /// The path, command or store, and its cause: "/etc/foo: permission denied".
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    pub fn error(what: impl Into<String>) -> Self {
        Self { severity: Severity::Error, what: what.into(), hint: None }
    }

    pub fn warning(what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, what: what.into(), hint: None }
    }

    pub fn notice(what: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, what: what.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok,
    Warned,
    Failed,
}

impl Outcome {
    /// The worst of what is known; a notice alone leaves a run ok.
    pub fn of(problems: &[Problem]) -> Self {
        let worth = problems.iter().any(|p| p.severity > Severity::Notice);
        if worth { Self::Warned } else { Self::Ok }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warned => "warned",
            Self::Failed => "failed",
        })
    }
}

/// Why a command ended; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    Failed,
    Usage,
    Verification,
    /// An armed restore that nobody confirmed.
    Unconfirmed,
    NotFound,
    Locked,
    Unseal,
}

/// Exit codes; stable, in `--help` and the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Problems = 3,
    Verification = 4,
    Unconfirmed = 5,
    NotFound = 10,
    Locked = 11,
    Unseal = 12,
}

impl From<FaultKind> for Exit {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::Failed => Self::Failed,
            FaultKind::Usage => Self::Usage,
            FaultKind::Verification => Self::Verification,
            FaultKind::Unconfirmed => Self::Unconfirmed,
            FaultKind::NotFound => Self::NotFound,
            FaultKind::Locked => Self::Locked,
            FaultKind::Unseal => Self::Unseal,
        }
    }
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Self::Ok,
            Outcome::Warned => Self::Problems,
            Outcome::Failed => Self::Failed,
        }
    }
}

/// An error with what to do next. Travels as (or as context of) an `anyhow::Error`;
/// the outermost one in a chain decides the exit code and the `hint:` line.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
    pub hint: Option<String>,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Usage, message)
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Failed, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FaultKind::NotFound, message)
    }

    pub fn unseal(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Unseal, message)
    }

    /// Puts the place before the message: `PLACE: MESSAGE`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
