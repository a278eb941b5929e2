//! Signals that ask a run to stop: noted by a handler, looked at between two steps.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use crate::model::problem::Fault;

// A signal handler can reach nothing but a static; it is only ever set.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Makes SIGINT, SIGTERM and SIGHUP ask the run to stop instead of ending the process.
/// The second of a kind ends it: a run may wait for something that does not come back.
pub fn catch_signals() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn stop(_: libc::c_int) {
        STOPPED.store(true, Ordering::Relaxed);
    }

    let flags = SaFlags::SA_RESTART | SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::Handler(stop), flags, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        #[allow(unsafe_code)]
        // SAFETY: the handler only stores to an atomic.
        let before = unsafe { sigaction(signal, &action) };
        // Whoever started us may want it ignored, as nohup does.
        if let Ok(before) = before
            && matches!(before.handler(), SigHandler::SigIgn)
        {
            #[allow(unsafe_code)]
            // SAFETY: puts back what was there.
            let _ = unsafe { sigaction(signal, &before) };
        }
    }
}

/// An error once a signal asked to stop; long loops call it between two steps.
pub fn check_stopped() -> Result<()> {
    if STOPPED.load(Ordering::Relaxed) {
        return Err(Fault::failed("stopped by a signal").into());
    }
    Ok(())
}
