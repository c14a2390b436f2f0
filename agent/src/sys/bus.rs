//! systemd, over the system bus: starting units, awaiting what became of it, reading their state.
//!
//! Nothing here has a time limit: a unit may rightly take long to start. Put
//! `tokio::time::timeout` around a call; dropping its future abandons only the waiting, systemd
//! goes on with the job.
//!
//! Properties are read when they are asked for, never from a cache: zbus's would be stale right
//! after a process died. They are plain strings, because systemd adds new ones with every release.

mod proxy;
mod unit;

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::StreamExt as _;
use systemd_zbus::{ManagerProxy, Mode};
use zbus::zvariant::OwnedObjectPath;

pub use unit::{Activity, ServiceState, UnitState, UnitWatch};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no bus, or the connection to it has broken: connect anew.
    #[error("not connected to the system bus")]
    NotConnected(#[source] zbus::Error),
    /// systemd has no unit of this name.
    #[error("there is no unit {0}")]
    NoSuchUnit(String),
    /// systemd did what was asked, and it did not work out. The unit's state says why.
    #[error("to {verb} {unit} came to nothing: {result}")]
    JobFailed {
        /// What was asked for.
        verb: Verb,
        /// The unit.
        unit: String,
        /// How the job ended; never [`JobResult::Done`].
        result: JobResult,
    },
    /// systemd, or the bus, said no.
    #[error("{action} was refused: {message} ({name})")]
    Refused {
        /// What was being done.
        action: String,
        /// The name of the D-Bus error, e.g. `org.freedesktop.systemd1.UnitMasked`.
        name: String,
        /// What was given as the reason.
        message: String,
    },
    /// The answer was none that belongs to the question.
    #[error("{action}")]
    Protocol {
        /// What was being done.
        action: String,
        /// What was wrong with the answer.
        source: zbus::Error,
    },
}

type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(action: impl FnOnce() -> String, error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, message, _) => Error::Refused {
                action: action(),
                name: name.to_string(),
                message: message.unwrap_or_default(),
            },
            source @ (zbus::Error::InputOutput(_) | zbus::Error::Connection(..)) => {
                Error::NotConnected(source)
            }
            source => Error::Protocol {
                action: action(),
                source,
            },
        }
    }

    /// As [`Error::new`], for what was done to a unit.
    fn of_unit(verb: impl fmt::Display, unit: &str, error: zbus::Error) -> Self {
        if let zbus::Error::MethodError(name, ..) = &error
            && name.as_str() == "org.freedesktop.systemd1.NoSuchUnit"
        {
            return Error::NoSuchUnit(unit.to_owned());
        }
        Error::new(|| format!("asking systemd to {verb} {unit}"), error)
    }

    fn lost() -> Self {
        Error::NotConnected(zbus::Error::InputOutput(Arc::new(
            io::ErrorKind::ConnectionReset.into(),
        )))
    }
}

/// What can be asked of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Start it, if it does not run.
    Start,
    /// Stop it, if it runs.
    Stop,
    /// Stop and start it, or just start it.
    Restart,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
        })
    }
}

/// How a job ended (org.freedesktop.systemd1(5), JobRemoved).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// As asked for.
    Done,
    /// Given up, because another job contradicts it.
    Canceled,
    /// It took longer than the unit allows.
    Timeout,
    /// The unit went to `failed`.
    Failed,
    /// A unit that it needs did not start.
    Dependency,
    /// It did not apply to the unit's state.
    Skipped,
    /// Another of systemd's words: `assert`, `unsupported`, `invalid`, `collected`, `once`…
    Other(String),
}

impl From<&str> for JobResult {
    fn from(word: &str) -> Self {
        match word {
            "done" => JobResult::Done,
            "canceled" => JobResult::Canceled,
            "timeout" => JobResult::Timeout,
            "failed" => JobResult::Failed,
            "dependency" => JobResult::Dependency,
            "skipped" => JobResult::Skipped,
            other => JobResult::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for JobResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobResult::Done => "done",
            JobResult::Canceled => "canceled",
            JobResult::Timeout => "timeout",
            JobResult::Failed => "failed",
            JobResult::Dependency => "dependency",
            JobResult::Skipped => "skipped",
            JobResult::Other(word) => word,
        })
    }
}

/// A connection to the system bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
}

impl Bus {
    /// Connects to the system bus and asks systemd to tell about its jobs and units.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when there is no bus (early in the boot: try again),
    /// [`Error::Refused`] when there is no systemd on it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect() -> Result<Self> {
        let connection = zbus::Connection::system()
            .await
            .map_err(Error::NotConnected)?;
        let action = || "subscribing to systemd".to_owned();
        let manager = ManagerProxy::new(&connection)
            .await
            .map_err(|e| Error::new(action, e))?;
        manager
            .subscribe()
            .await
            .map_err(|e| Error::new(action, e))?;
        Ok(Bus {
            connection,
            manager,
        })
    }

    /// Whether systemd still answers on this connection.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::Refused`].
    pub async fn ping(&self) -> Result<()> {
        let peer = Some("org.freedesktop.DBus.Peer");
        let answer = self
            .connection
            .call_method(
                Some(proxy::SYSTEMD),
                "/org/freedesktop/systemd1",
                peer,
                "Ping",
                &(),
            )
            .await;
        answer
            .map(|_| ())
            .map_err(|e| Error::new(|| "asking whether systemd is there".to_owned(), e))
    }

    /// Makes systemd read its unit files anew, and waits until it has.
    ///
    /// # Errors
    /// [`Error::NotConnected`] or [`Error::Refused`].
    pub async fn daemon_reload(&self) -> Result<()> {
        self.manager
            .reload()
            .await
            .map_err(|e| Error::new(|| "reloading systemd".to_owned(), e))
    }

    /// Starts a unit and waits until it is up, as its type defines that.
    ///
    /// # Errors
    /// [`Error::JobFailed`], [`Error::NoSuchUnit`], [`Error::Refused`], [`Error::NotConnected`].
    pub async fn start(&self, unit: &str) -> Result<()> {
        self.run(Verb::Start, unit).await
    }

    /// Stops a unit and waits until all of its processes are gone.
    ///
    /// # Errors
    /// As [`Bus::start`].
    pub async fn stop(&self, unit: &str) -> Result<()> {
        self.run(Verb::Stop, unit).await
    }

    /// Stops and starts a unit, or just starts it, and waits until it is up.
    ///
    /// # Errors
    /// As [`Bus::start`].
    pub async fn restart(&self, unit: &str) -> Result<()> {
        self.run(Verb::Restart, unit).await
    }

    /// Makes a unit start no more by itself at boot; one that has no file, or
    /// that others have enabled below /usr, is left as it is.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::NotConnected`].
    pub async fn disable(&self, unit: &str) -> Result<()> {
        match self.manager.disable_unit_files(&[unit], false).await {
            Ok(_) => Ok(()),
            Err(error) => match Error::of_unit("disable", unit, error) {
                Error::NoSuchUnit(_) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Queues the job and does not wait for it: for what needs this very process to get on first.
    ///
    /// # Errors
    /// [`Error::NoSuchUnit`], [`Error::Refused`], [`Error::NotConnected`].
    pub async fn enqueue(&self, verb: Verb, unit: &str) -> Result<()> {
        self.call(verb, unit).await?;
        Ok(())
    }

    /// Makes a unit that is `failed` `inactive`, with its restart counter at zero.
    ///
    /// # Errors
    /// [`Error::NoSuchUnit`] when systemd does not know the unit, [`Error::Refused`],
    /// [`Error::NotConnected`].
    pub async fn reset_failed(&self, unit: &str) -> Result<()> {
        self.manager
            .reset_failed_unit(unit)
            .await
            .map_err(|e| Error::of_unit("reset", unit, e))
    }

    /// Sends a signal to a service's main process.
    ///
    /// # Errors
    /// [`Error::NoSuchUnit`], [`Error::Refused`] also where it has no process, and
    /// [`Error::NotConnected`].
    pub async fn signal(&self, unit: &str, signal: nix::sys::signal::Signal) -> Result<()> {
        self.manager
            .kill_unit(unit, "main", signal as i32)
            .await
            .map_err(|e| Error::of_unit("signal", unit, e))
    }

    /// Whether the kernel holds its clock to be synchronised (`adjtimex` without `STA_UNSYNC`),
    /// whoever synchronises it; `None` when this machine has no systemd-timedated to ask.
    ///
    /// # Errors
    /// [`Error::NotConnected`] or [`Error::Refused`].
    pub async fn clock_synchronised(&self) -> Result<Option<bool>> {
        proxy::clock_synchronised(&self.connection).await
    }

    /// systemd's version as it says it, e.g. `257.9-1~deb13u1`.
    ///
    /// # Errors
    /// [`Error::NotConnected`] or [`Error::Refused`].
    pub async fn systemd_version(&self) -> Result<String> {
        proxy::systemd_version(&self.connection).await
    }

    async fn call(&self, verb: Verb, unit: &str) -> Result<OwnedObjectPath> {
        let manager = &self.manager;
        let job = match verb {
            Verb::Start => manager.start_unit(unit, Mode::Replace).await,
            Verb::Stop => manager.stop_unit(unit, Mode::Replace).await,
            Verb::Restart => manager.restart_unit(unit, Mode::Replace).await,
        };
        job.map_err(|e| Error::of_unit(verb, unit, e))
    }

    async fn run(&self, verb: Verb, unit: &str) -> Result<()> {
        // Listen before asking, or a job that ends at once is never heard of.
        let removed = self.manager.receive_job_removed().await;
        let mut removed =
            removed.map_err(|e| Error::new(|| "listening for systemd's jobs".to_owned(), e))?;

        // While the reply is on its way, other jobs may end by the dozen (at boot they do). They
        // have to be taken off the queue: when it is full, zbus stops reading, our reply included.
        let mut ended: Vec<(OwnedObjectPath, JobResult)> = Vec::new();
        let call = self.call(verb, unit);
        tokio::pin!(call);
        let job = loop {
            tokio::select! {
                biased;
                signal = removed.next() => ended.extend(job_of(signal.ok_or_else(Error::lost)?)),
                job = &mut call => break job?,
            }
        };
        let mut result = ended
            .into_iter()
            .find_map(|(path, result)| (path == job).then_some(result));
        while result.is_none() {
            let signal = removed.next().await.ok_or_else(Error::lost)?;
            result = job_of(signal)
                .filter(|(path, _)| *path == job)
                .map(|(_, result)| result);
        }
        match result {
            None | Some(JobResult::Done) => Ok(()),
            Some(result) => Err(Error::JobFailed {
                verb,
                unit: unit.to_owned(),
                result,
            }),
        }
    }
}

/// Which job a signal tells of, and how it ended.
fn job_of(signal: systemd_zbus::JobRemoved) -> Option<(OwnedObjectPath, JobResult)> {
    let args = signal.args().ok()?;
    Some((
        args.job().to_owned().into(),
        JobResult::from(*args.result()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_results_keep_words_that_are_new_to_us() {
        for word in [
            "done",
            "canceled",
            "timeout",
            "failed",
            "dependency",
            "skipped",
            "concurrency",
        ] {
            assert_eq!(JobResult::from(word).to_string(), word);
        }
        assert_eq!(JobResult::from("done"), JobResult::Done);
        assert_eq!(
            JobResult::from("concurrency"),
            JobResult::Other("concurrency".to_owned())
        );
    }

    #[test]
    fn failed_job_reads_as_a_sentence() {
        let error = Error::JobFailed {
            verb: Verb::Start,
            unit: "kubelet.service".to_owned(),
            result: JobResult::Dependency,
        };
        assert_eq!(
            error.to_string(),
            "to start kubelet.service came to nothing: dependency"
        );
    }
}
