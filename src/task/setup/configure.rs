//! Writes the node's own configuration files whole, the secrets for root only. What was there stays beside them.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::config::{FILE, SECRETS_FILE};
use crate::model::problem::Fault;
use crate::model::section;
use crate::sys::fs::files;
use crate::sys::host::{CONFIG_DIR, Host};

const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;
/// Hundreds of times what anybody configures.
const MAX_BYTES: u64 = 4 << 20;

/// The two files as they shall be.
pub struct Files {
    pub public: String,
    /// None: there shall be none.
    pub secrets: Option<String>,
}

/// Writes both; returns what was written, and what was kept aside under `.before-<verb>`.
/// The secrets come first: a header in the other file that lacks its secret would be an error of every run.
pub fn write(host: &Host, new: &Files, verb: &str) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let folder = host.make_config_dir()?;

    let (mut written, mut kept) = (Vec::new(), Vec::new());
    let files = [(SECRETS_FILE, PRIVATE, new.secrets.as_deref()), (FILE, PUBLIC, Some(&*new.public))];
    let mut old = Vec::new();
    for (name, mode, text) in files {
        let before = read(host, name)?;
        if let Some(before) =
            before.as_ref().filter(|before| Some(before.as_slice()) != text.map(str::as_bytes))
        {
            let aside = format!("{name}.before-{verb}");
            folder.replace(&aside, mode, before)?;
            kept.push(folder.path().join(aside));
        }
        old.push(before);
    }

    for ((name, mode, text), before) in files.into_iter().zip(old) {
        let path = folder.path().join(name);
        match text {
            Some(text) => {
                folder.replace(name, mode, text.as_bytes())?;
                written.push(path);
            }
            None if before.is_some() => {
                let removed = folder.remove(name).and_then(|()| folder.sync());
                removed.with_context(|| format!("cannot remove {}", path.display()))?;
            }
            None => {}
        }
    }
    Ok((written, kept))
}

/// Errors: `Usage` when the node is configured already. The shipped file, all of it comments, is nothing yet.
pub fn check_unconfigured(host: &Host) -> Result<()> {
    for name in [FILE, SECRETS_FILE] {
        let Some(bytes) = read(host, name)? else { continue };
        let sections = section::parse(name, &String::from_utf8_lossy(&bytes));
        if !sections.is_ok_and(|sections| sections.is_empty()) {
            let path = host.path(CONFIG_DIR).join(name);
            let fault = Fault::usage(format!("{}: this host is configured already", path.display()));
            return Err(fault.hint("--force replaces it; the old files are kept beside the new ones").into());
        }
    }
    Ok(())
}

fn read(host: &Host, name: &str) -> Result<Option<Vec<u8>>> {
    match files::read_small(host.root(), format!("{CONFIG_DIR}/{name}"), MAX_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {CONFIG_DIR}/{name}")),
    }
}
