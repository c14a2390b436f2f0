//! Waiting with a deadline, for what cannot be awaited otherwise.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(100);

/// Asks `probe` until it has a value. `Ok(None)` and errors mean "not yet"; when `limit`
/// has passed, the last error is told.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let failure = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            match failure {
                Some(error) => return Err(error.context(format!("no {what} within {limit:?}"))),
                None => bail!("no {what} within {limit:?}"),
            }
        }
        thread::sleep(PAUSE);
    }
}
