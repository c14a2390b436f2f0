//! Time, handed in so that a test decides what the time is and how long a wait takes.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
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

/// The places of time at which pauses end are so far apart: for pauses of half of it and more,
/// and for shorter ones.
const PLACES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];

/// Waits about as long: for what is looked at now and then while nothing happens. All such
/// pauses of a process end at the same places of time, so that a machine at rest is woken once
/// for all of them, and an interval is kept whatever is done between two pauses. One of two
/// seconds is right to half a second, one of five to two and a half.
/// Source: the same as `AccuracySec=` of systemd.timer(5).
///
/// # Panics
/// Outside of a tokio runtime with its timer enabled.
pub async fn pause(about: Duration) {
    static BEGAN: OnceLock<tokio::time::Instant> = OnceLock::new();
    let now = tokio::time::Instant::now();
    let began = *BEGAN.get_or_init(|| now);
    tokio::time::sleep_until(began + end_of_pause(now.duration_since(began), about)).await;
}

/// When a pause ends that begins at `now`; times are since any fixed moment.
fn end_of_pause(now: Duration, about: Duration) -> Duration {
    let [far, near] = PLACES;
    let apart = if about >= far { far } else { near };
    if about < near * 2 {
        return now + about;
    }
    let apart = apart.as_millis();
    let nearest = ((now + about).as_millis() + apart / 2) / apart * apart;
    Duration::from_millis(u64::try_from(nearest).unwrap_or(u64::MAX))
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

    #[test]
    fn pauses_end_together_and_keep_their_interval() {
        let ends = |now: u64, about: u64| {
            end_of_pause(Duration::from_millis(now), Duration::from_millis(about)).as_millis()
        };
        // The first is right to half of the distance between two places.
        assert_eq!(ends(1_400, 10_000), 10_000);
        assert_eq!(ends(2_600, 10_000), 15_000);
        assert_eq!(ends(2_600, 5_000), 10_000);
        assert_eq!(ends(400, 3_000), 3_000);
        // From then on what is done in between takes nothing of it.
        assert_eq!(ends(10_030, 10_000), 20_000);
        assert_eq!(ends(10_030, 60_000), 70_000);
        assert_eq!(ends(10_030, 5_000), 15_000);
        assert_eq!(ends(3_030, 3_000), 6_000);
        // Short ones are exact.
        assert_eq!(ends(1_234, 1_500), 2_734);
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
