//! What opens sealed snapshots, as it was named or as a person at the terminal is asked for it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use zeroize::Zeroizing;

use super::render;
use crate::archive::identity::{Keys, Question};
use crate::model::report::{Fault, FaultKind};
use crate::sys::tty;

const VARIABLE: &str = "PBX_IDENTITY_FILE";

/// The keys of a command: the files that were named, else the variable's, a person's SSH keys, and the person.
pub fn keys(named: &[PathBuf]) -> Result<Keys> {
    let variable = std::env::var_os(VARIABLE).filter(|path| named.is_empty() && !path.is_empty());
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    Keys::new(named, variable.map(PathBuf::from), home, Some(Box::new(ask)))
}

/// None: there is no terminal. Errors: the person left, or a signal did.
fn ask(question: Question, wrong: Option<&str>) -> Result<Option<Zeroizing<String>>> {
    let Some(tty) = tty::open() else { return Ok(None) };
    let wrong = wrong.map(|wrong| format!("{wrong}\n")).unwrap_or_default();
    let what = match question {
        Question::Key { of, passphrase: true } => {
            format!("Passphrase or identity of {}", shown(Path::new(of)))
        }
        Question::Key { of, passphrase: false } => {
            format!("Identity (AGE-SECRET-KEY-1...) of {}", shown(Path::new(of)))
        }
        Question::Unlock { file } => format!("Passphrase of {}", shown(file)),
    };
    let answer = tty::ask_hidden(&tty, &format!("{wrong}{what} (hidden; Ctrl-D leaves): "))?;
    // An empty line is a slip of the finger, and no key.
    answer.map(Some).ok_or_else(|| left().into())
}

fn left() -> Fault {
    Fault::new(FaultKind::Unseal, "left without a key; nothing was opened")
        .hint("--identity FILE names a file that holds it")
}

fn shown(path: &Path) -> String {
    render::one_line(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}
