//! Retention, in Proxmox's words.

use serde::{Deserialize, Serialize};

/// Number of snapshots of a host that a store keeps. All zero, the default, keeps all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Keep {
    pub keep_last: u32,
    pub keep_hourly: u32,
    pub keep_daily: u32,
    pub keep_weekly: u32,
    pub keep_monthly: u32,
    pub keep_yearly: u32,
}

impl Keep {
    /// The keys of a store's section.
    pub const KEYS: [&str; 6] =
        ["keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly"];

    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }
}
