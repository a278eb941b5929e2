//! `decrypt`: a snapshot in the clear.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{App, render};
use crate::archive::writer::HOWTO_NAME;
use crate::model::problem::{Exit, Outcome};
use crate::task::snapshots::decrypt::{self, Decrypted};

/// Decrypt a snapshot: write its payload, manifest and HOWTO.txt
///
/// The snapshot is verified first; the directory appears when it is complete. Only its owner can read it.
/// A legacy archive is written as the three files that the legacy program made: archive, .metadata and .sha256.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config decrypt latest --to /root/clear --identity /media/stick/key.txt
  pbx-config decrypt /media/stick/pve1_20261122T151740Z.pbx.tar --to clear")]
pub struct Decrypt {
    pub snap: String,
    /// Directory to write to, empty or new
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    #[command(flatten)]
    pub stores: super::common_args::Stores,
}

impl App<'_> {
    pub(super) fn decrypt(&mut self, args: &Decrypt) -> Result<Exit> {
        let chosen = self.choose(&args.stores, &args.snap)?;
        let done = decrypt::run(&chosen, &args.to)?;
        let outcome = Outcome::of(&done.problems);
        self.print(&done, shown)?;
        Ok(outcome.into())
    }
}

fn shown(done: &Decrypted) -> String {
    let mut text = format!("snapshot  {}\n", done.id);
    for (name, size) in &done.files {
        text.push_str(&format!("wrote     {}/{name} ({})\n", done.to, render::size(*size)));
    }
    text.push_str(&format!("contents  {} files of the host, all verified\n", done.host_files));
    if !done.was_sealed {
        text.push_str("note      it was not encrypted\n");
    }
    let next = if done.files.iter().any(|(name, _)| name == HOWTO_NAME) {
        format!("{}/{HOWTO_NAME} says how to unpack it", done.to)
    } else {
        "tar unpacks it; ProxSave can read the three files as its own archive".to_owned()
    };
    text.push_str(&format!("next      {next}; it is not encrypted now, remove it when you are done\n"));
    text + &render::problems(&done.problems)
}
