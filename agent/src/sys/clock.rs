//! Time, handed in so that a test decides what the time is and how long a wait takes.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};

use super::root::{self, Root};

/// Made by systemd-timesyncd when it has set the clock for the first time since boot
/// (systemd-timesyncd.service(8)).
const TIMESYNC_STAMP: &str = "/run/systemd/timesync/synchronized";

/// A future that a [`Clock`] returns from [`Clock::sleep`].
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Where the time comes from.
///
/// Production code uses [`SystemClock`]; a test brings its own. Object safe: pass `Arc<dyn Clock>`.
pub trait Clock: Debug + Send + Sync {
    /// The wall clock (`CLOCK_REALTIME`). It may jump, and may be hours wrong on a machine that
    /// has just booted: compare it with certificates, never measure with it.
    fn now(&self) -> SystemTime;

    /// A clock that only goes forward (`CLOCK_MONOTONIC`, which stands still while the machine is
    /// suspended): for deadlines and durations.
    fn monotonic(&self) -> Instant;

    /// Waits for `duration`. Dropping the future ends the wait.
    fn sleep(&self, duration: Duration) -> Sleep<'_>;
}

/// The machine's own clock and tokio's timer.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Whether systemd-timesyncd has set the clock since boot.
///
/// `false` is not "the clock is wrong": a machine with chrony or with a hypervisor's clock never
/// has the stamp. [`Bus::clock_synchronised`](super::bus::Bus::clock_synchronised) asks for the
/// kernel's own opinion (`adjtimex`), whoever disciplines the clock; this one works before the bus
/// is up.
///
/// # Errors
/// When /run cannot be read for another reason than that the file is missing.
pub fn timesyncd_has_synchronised(root: &Root) -> Result<bool, root::Error> {
    Ok(root.stat(TIMESYNC_STAMP)?.is_some())
}

/// For how long this process has kept a processor busy, in its own code and in the kernel for
/// it; `None` when the kernel does not say (getrusage(2)).
#[must_use]
pub fn worked() -> Option<Duration> {
    let used = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    [used.user_time(), used.system_time()]
        .into_iter()
        .map(|time| {
            let whole = Duration::from_secs(u64::try_from(time.tv_sec()).ok()?);
            Some(whole + Duration::from_micros(u64::try_from(time.tv_usec()).ok()?))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_waiting_is_not() {
        let before = worked().expect("counted");
        let began = Instant::now();
        let mut sum = 0_u64;
        while worked().expect("counted") < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_mul(3) + 1);
        }
        assert!(worked().expect("counted") > before);
        assert!(began.elapsed() < Duration::from_secs(60), "{sum}");
    }

    #[test]
    fn stamp_of_timesyncd_is_looked_up_under_the_root() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Root::new(folder.path());
        assert!(!timesyncd_has_synchronised(&root).expect("readable"));
        std::fs::create_dir_all(folder.path().join("run/systemd/timesync")).expect("folders");
        std::fs::write(folder.path().join("run/systemd/timesync/synchronized"), "").expect("file");
        assert!(timesyncd_has_synchronised(&root).expect("readable"));
    }

    #[tokio::test]
    async fn sleeping_takes_at_least_as_long_as_asked() {
        let clock: &dyn Clock = &SystemClock;
        let before = clock.monotonic();
        clock.sleep(Duration::from_millis(15)).await;
        assert!(clock.monotonic() - before >= Duration::from_millis(15));
        assert!(clock.now() > SystemTime::UNIX_EPOCH);
    }
}
