//! Small state files of JSON: read whole within a limit, replaced whole, for their owner alone.

use std::io::ErrorKind;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fs::files;

const PRIVATE: u32 = 0o600;

/// A file that holds one value.
pub struct JsonFile<T> {
    root: PathBuf,
    /// Below the root, where its links are followed.
    name: PathBuf,
    max_bytes: u64,
    value: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> JsonFile<T> {
    pub fn new(root: &Path, name: impl AsRef<Path>, max_bytes: u64) -> Self {
        Self { root: root.to_owned(), name: name.as_ref().to_owned(), max_bytes, value: PhantomData }
    }

    pub fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Returns the value; None when there is no file. Errors: it cannot be read or is not such a value, with its path.
    pub fn read(&self) -> Result<Option<T>> {
        let text = match files::read_small(&self.root, &self.name, self.max_bytes) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(anyhow::Error::from),
        };
        text.and_then(|text| Ok(serde_json::from_slice(&text)?))
            .with_context(|| format!("cannot read {}", self.path().display()))
    }

    /// Replaces the file. Errors: with its path.
    pub fn write(&self, value: &T) -> Result<()> {
        files::replace(&self.path(), PRIVATE, &serde_json::to_vec(value)?)
    }

    /// The same for a file that people look into: indented.
    pub fn write_pretty(&self, value: &T) -> Result<()> {
        files::replace(&self.path(), PRIVATE, &serde_json::to_vec_pretty(value)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_comes_back_and_no_file_is_no_value() {
        let dir = tempfile::tempdir().unwrap();
        let file = JsonFile::<Vec<u32>>::new(dir.path(), "numbers.json", 20);
        assert_eq!(file.read().unwrap(), None);
        file.write(&vec![1, 2]).unwrap();
        assert_eq!(file.read().unwrap(), Some(vec![1, 2]));
        for broken in ["[1, 2", "[1, 2, 3, 4, 5, 6, 7]"] {
            std::fs::write(file.path(), broken).unwrap();
            assert!(file.read().unwrap_err().to_string().contains("numbers.json"), "{broken}");
        }
    }
}
