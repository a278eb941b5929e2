//! Calls to a folder that may hang, made where they can be given up: in a child process that is killed at its limit.
//! What it answers, or why it cannot, comes back as if it had been done here.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::problem::{Fault, FaultKind};
use crate::sys::process::forked::{self, ChildResult};

/// An error on its way: its chain, outermost first.
#[derive(Serialize, Deserialize)]
struct Told {
    chain: Vec<String>,
    hint: Option<String>,
    /// Of the system's error at its root.
    errno: Option<i32>,
}

impl Told {
    fn of(error: &anyhow::Error) -> Self {
        let root = error.root_cause().downcast_ref::<io::Error>();
        Self {
            chain: error.chain().map(ToString::to_string).collect(),
            hint: error.downcast_ref::<Fault>().and_then(|fault| fault.hint.clone()),
            errno: root.and_then(io::Error::raw_os_error),
        }
    }

    fn into_error(mut self) -> anyhow::Error {
        let root = self.chain.pop().unwrap_or_default();
        let error = match self.errno {
            Some(errno) => anyhow::Error::from(io::Error::from_raw_os_error(errno)),
            None => anyhow!(root.clone()),
        };
        let error = self.chain.into_iter().rev().fold(error, anyhow::Error::context);
        match self.hint {
            // The outermost words once more, now with what to do.
            Some(hint) => {
                let mut chain = error.chain().map(ToString::to_string);
                let message = chain.by_ref().collect::<Vec<_>>().join(": ");
                Fault::new(FaultKind::Failed, message).hint(hint).into()
            }
            None => error,
        }
    }
}

/// Does `work` in a child. Errors: its own, and that it did not end within `limit`, as a fault of the store.
pub(super) fn run<T: Serialize + DeserializeOwned>(
    store: &str,
    place: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let answer = forked::run(limit, |pipe| {
        let told = work().map_err(|error| Told::of(&error));
        let _ = serde_json::to_vec(&told).map(|bytes| pipe.write_all(&bytes));
    })
    .with_context(|| format!("store '{store}'"))?;
    let ChildResult::Finished(bytes) = answer else {
        let message = format!("store '{store}': {place} does not answer within {} s", limit.as_secs());
        return Err(Fault::new(FaultKind::Failed, message)
            .hint("its server, or the way to it, is down; `timeout` is the limit")
            .into());
    };
    let told: std::result::Result<T, Told> = serde_json::from_slice(&bytes)
        .with_context(|| format!("store '{store}': the process that reads {place} ended early"))?;
    told.map_err(Told::into_error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bounded(work: impl FnOnce() -> Result<u32>) -> Result<u32> {
        run("nas", "/mnt/nas", Duration::from_millis(300), work)
    }

    #[test]
    fn an_answer_and_an_error_come_back_as_they_were() {
        assert_eq!(bounded(|| Ok(5)).unwrap(), 5);
        let error = bounded(|| Err(io::Error::from_raw_os_error(28)).context("cannot write x")).unwrap_err();
        assert_eq!(format!("{error:#}"), "cannot write x: No space left on device (os error 28)");
        let kind = error.root_cause().downcast_ref::<io::Error>().unwrap().kind();
        assert_eq!(kind, io::ErrorKind::StorageFull);
        let error = bounded(|| Err(Fault::new(FaultKind::Failed, "gone").hint("look").into())).unwrap_err();
        let fault = error.downcast_ref::<Fault>().unwrap();
        assert_eq!((fault.message.as_str(), fault.hint.as_deref()), ("gone", Some("look")));
    }

    #[test]
    fn what_does_not_end_is_a_fault_of_the_store() {
        let error = bounded(|| {
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        });
        assert_eq!(format!("{:#}", error.unwrap_err()), "store 'nas': /mnt/nas does not answer within 0 s");
    }
}
