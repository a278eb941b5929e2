//! A value that is never shown.

use std::fmt;

use serde::Deserialize;

/// Text that stands for a secret wherever one would be shown.
pub const MASK: &str = "***";

/// A value of secrets.cfg. Neither `Debug` nor serde ever write it.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}
