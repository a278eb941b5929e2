//! Small state files of JSON: read whole within a limit, replaced whole, for their owner alone.

use std::io::ErrorKind;
use std::marker::PhantomData;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::host::Host;

const PRIVATE: u32 = 0o600;

/// A file in the state directory that holds one value.
pub struct JsonFile<'a, T> {
    host: &'a Host,
    name: &'static str,
    max_bytes: u64,
    value: PhantomData<T>,
}

impl<'a, T: Serialize + DeserializeOwned> JsonFile<'a, T> {
    pub fn new(host: &'a Host, name: &'static str, max_bytes: u64) -> Self {
        Self { host, name, max_bytes, value: PhantomData }
    }

    /// Returns the value; None when there is no file. Errors: it cannot be read or is not such a value, with its path.
    pub fn read(&self) -> Result<Option<T>> {
        let text = match self.host.state().and_then(|state| state.read(self.name, self.max_bytes)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(anyhow::Error::from),
        };
        text.and_then(|text| Ok(serde_json::from_slice(&text)?))
            .with_context(|| format!("cannot read {}", self.host.state_path().join(self.name).display()))
    }

    /// Replaces the file. Errors: with its path; of the state directory.
    pub fn write(&self, value: &T) -> Result<()> {
        self.host.make_state()?.replace(self.name, PRIVATE, &serde_json::to_vec(value)?)
    }

    /// The same for a file that people look into: indented.
    pub fn write_pretty(&self, value: &T) -> Result<()> {
        self.host.make_state()?.replace(self.name, PRIVATE, &serde_json::to_vec_pretty(value)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::process::exec::NoTools;

    #[test]
    fn a_value_comes_back_and_no_file_is_no_value() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::detect(dir.path().to_owned(), jiff::Timestamp::UNIX_EPOCH, Box::new(NoTools));
        let file = JsonFile::<Vec<u32>>::new(&host, "numbers.json", 20);
        assert_eq!(file.read().unwrap(), None);
        file.write(&vec![1, 2]).unwrap();
        assert_eq!(file.read().unwrap(), Some(vec![1, 2]));
        for broken in ["[1, 2", "[1, 2, 3, 4, 5, 6, 7]"] {
            std::fs::write(host.state_path().join("numbers.json"), broken).unwrap();
            assert!(file.read().unwrap_err().to_string().contains("numbers.json"), "{broken}");
        }
    }
}
