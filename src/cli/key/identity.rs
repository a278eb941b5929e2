//! Identity that opens encrypted snapshots, as it was named or as a person at the terminal is asked for it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use zeroize::Zeroizing;

use crate::archive::identity::Identity;
use crate::archive::keys::{Keys, Question};
use crate::cli::render;
use crate::model::problem::{Fault, FaultKind};
use crate::sys::tty;

const VARIABLE: &str = "PBX_IDENTITY_FILE";

/// The keys of a command: the files that were named, else the variable's, a person's SSH keys (`own`), and the person.
pub fn keys(named: &[PathBuf], own: bool) -> Result<Keys> {
    let variable = std::env::var_os(VARIABLE).filter(|path| named.is_empty() && !path.is_empty());
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| own && home.is_absolute());
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
    let answer = tty::ask_hidden(&tty, &format!("{wrong}{what} (hidden; Ctrl-D cancels): "))?;
    // An empty line is a slip of the finger, and no key.
    answer.map(Some).ok_or_else(|| left().into())
}

/// Keys that are nothing but what a person is asked for.
pub fn asking() -> Result<Keys> {
    Keys::new(&[], None, None, Some(Box::new(ask)))
}

/// A new passphrase, asked for twice. `check` refuses what is too weak.
/// Errors: `Usage` without a terminal; the person left.
pub fn new_passphrase(check: &dyn Fn(&str) -> Result<()>) -> Result<Zeroizing<String>> {
    let tty = terminal("a passphrase is required")?;
    let mut before = String::new();
    loop {
        let prompt = format!("{before}Passphrase to open the snapshots (hidden; Ctrl-D cancels): ");
        let first = trimmed(&tty::ask_hidden(&tty, &prompt)?.ok_or_else(unmade)?);
        if let Err(error) = check(&first) {
            before = format!("{error:#}\n");
            continue;
        }
        let again = tty::ask_hidden(&tty, "Repeat the passphrase: ")?.ok_or_else(unmade)?;
        if trimmed(&again) == first {
            return Ok(first);
        }
        before = String::from("the passphrases are not the same\n");
    }
}

/// Returns the text without the white space around it, the same as when it is used.
fn trimmed(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.trim().to_owned())
}

pub fn ask_passphrase(file: &Path, wrong: Option<&str>) -> Result<Zeroizing<String>> {
    let asked = ask(Question::Unlock { file }, wrong)?;
    asked.ok_or_else(|| no_terminal(&format!("{}: is protected by a passphrase", shown(file))).into())
}

/// An identity as it is typed or pasted.
pub fn ask_identity() -> Result<Identity> {
    let tty = terminal("an identity is required")?;
    let mut before = "";
    loop {
        let prompt = format!("{before}Identity, AGE-SECRET-KEY-1... (hidden; Ctrl-D cancels): ");
        let answer = tty::ask_hidden(&tty, &prompt)?.ok_or_else(left)?;
        match Identity::of_line(&answer) {
            Some(identity) => return Ok(identity),
            None => before = "this is not an identity\n",
        }
    }
}

fn terminal(why: &str) -> Result<std::fs::File> {
    tty::open().ok_or_else(|| no_terminal(why).into())
}

fn no_terminal(why: &str) -> Fault {
    Fault::new(FaultKind::Usage, format!("{why}, and there is no terminal"))
        .hint("run it on a terminal, for example with `ssh -t HOST pbx-config ...`")
}

fn unmade() -> Fault {
    Fault::new(FaultKind::Failed, "cancelled: no key was created, nothing was changed")
}

fn left() -> Fault {
    Fault::new(FaultKind::Unseal, "cancelled: nothing was opened")
        .hint("name the key file with --identity FILE")
}

fn shown(path: &Path) -> String {
    render::one_line(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}
