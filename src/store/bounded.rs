//! Calls to a folder that may hang, made where they can be given up: in a child process that is killed at its limit.
//! What it answers, or why it cannot, comes back as if it had been done here.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::problem::Fault;
use crate::sys::process::forked::{self, CarriedError, ChildResult};

/// Does `work` in a child. Errors: its own, and that it did not end within `limit`, as a fault of the store.
pub(super) fn run<T: Serialize + DeserializeOwned>(
    store: &str,
    place: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let answer = forked::run(limit, || work().map_err(CarriedError::from));
    match answer.with_context(|| format!("store '{store}'"))? {
        ChildResult::Finished(done) => done.map_err(anyhow::Error::from),
        ChildResult::TimedOut => {
            let message = format!("store '{store}': {place} does not answer within {} s", limit.as_secs());
            Err(Fault::failed(message)
                .hint("its server, or the way to it, is down; `timeout` is the limit")
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;

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
        let error = bounded(|| Err(Fault::failed("gone").hint("look").into())).unwrap_err();
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
