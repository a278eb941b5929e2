//! Arguments that several verbs take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct Global {
    /// Use the system mounted at this directory instead of the running one
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    pub root: PathBuf,
    /// Format of standard output and of errors
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    pub output_format: Format,
    /// Short for --output-format json
    #[arg(long, global = true)]
    pub json: bool,
    /// Key to open encrypted snapshots: a file of age identities or an SSH key
    #[arg(long = "identity", global = true, value_name = "FILE")]
    pub identities: Vec<PathBuf>,
    /// Suppress progress and informational output
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print more messages; twice for debug messages
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

impl Global {
    pub fn format(&self) -> Format {
        if self.json && self.output_format == Format::Text { Format::Json } else { self.output_format }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    JsonPretty,
}

#[derive(Debug, Args)]
pub struct Stores {
    /// Restrict to these stores, by name; a path with a / is a directory with snapshots
    #[arg(long = "store", value_name = "NAME|DIR")]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Selected {
    /// Restrict to these items or categories (see `pbx-config catalog`)
    #[arg(long, value_name = "ITEM|CATEGORY", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Exclude these items or categories
    #[arg(long, value_name = "ITEM|CATEGORY", value_delimiter = ',')]
    pub skip: Vec<String>,
}
