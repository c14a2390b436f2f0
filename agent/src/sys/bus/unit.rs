//! What a unit is doing, and hearing when that changes.

use futures_util::StreamExt as _;
use tokio::task::AbortHandle;
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedObjectPath;
use zbus::{MatchRule, MessageStream};

use super::proxy::{SYSTEMD, ServiceProxy, UnitProxy};
use super::{Bus, Error, Result};
use crate::sys::pulse::Pulse;

const CHANGED: u8 = 1;
const ENDED: u8 = 2;

/// What a unit is doing (org.freedesktop.systemd1(5)). The strings are systemd's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`…
    pub load: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`…
    pub active: String,
    /// The same in the words of the unit's type: `running`, `dead`, `auto-restart`…
    pub sub: String,
    /// `enabled`, `static`, `disabled`, `generated`…; empty when there is no file.
    pub unit_file: String,
    /// Different for each time that the unit was started, in hex; empty when it never was.
    pub invocation_id: String,
    /// More, if it is a service.
    pub service: Option<ServiceState>,
}

impl UnitState {
    /// Whether the unit is up (`active` or `reloading`).
    #[must_use]
    pub fn is_active(&self) -> bool {
        is_active(&self.active)
    }

    /// Whether systemd has a file or another definition of the unit that it could read.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.load == "loaded"
    }
}

/// Whether a unit runs, and no more: one question to systemd, where a [`UnitState`] takes
/// a dozen. The words are those of [`UnitState`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`…
    pub load: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`…
    pub active: String,
    /// The same in the words of the unit's type: `running`, `dead`, `auto-restart`…
    pub sub: String,
}

impl Activity {
    /// As [`UnitState::is_active`].
    #[must_use]
    pub fn is_active(&self) -> bool {
        is_active(&self.active)
    }
}

impl From<&UnitState> for Activity {
    fn from(state: &UnitState) -> Self {
        Self {
            load: state.load.clone(),
            active: state.active.clone(),
            sub: state.sub.clone(),
        }
    }
}

fn is_active(word: &str) -> bool {
    matches!(word, "active" | "reloading" | "refreshing")
}

/// A unit in ListUnitsByNames (org.freedesktop.systemd1(5)): its name, its description, how it
/// is loaded, active and sub-active, whom it follows, its path, and its job.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// What a service's processes are doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceState {
    /// `success`, `exit-code`, `signal`, `timeout`, `watchdog`, `oom-kill`, `start-limit-hit`…
    pub result: String,
    /// The main process; 0 when there is none.
    pub main_pid: u32,
    /// How the last main process ended, as in waitid(2): 1 exited, 2 killed, 3 killed with a core
    /// dump; 0 when none has ended yet.
    pub exec_main_code: i32,
    /// Its exit status or the number of the signal.
    pub exec_main_status: i32,
    /// How often systemd restarted it by itself since it was last started by a job.
    pub restarts: u32,
}

impl Bus {
    /// What a unit is doing right now. A unit that does not exist is `not-found`.
    ///
    /// The values are read one after the other: in the middle of a change they may be of two
    /// moments.
    ///
    /// # Errors
    /// [`Error::NotConnected`], or [`Error::Refused`] for what is no name of a unit.
    pub async fn unit(&self, unit: &str) -> Result<UnitState> {
        let path = self.path_of(unit).await?;
        self.read(&path, unit)
            .await
            .map_err(|e| Error::of_unit("describe", unit, e))
    }

    /// Whether a unit runs, of one moment. A unit that does not exist is `not-found`.
    ///
    /// # Errors
    /// As [`Bus::unit`].
    pub async fn activity(&self, unit: &str) -> Result<Activity> {
        let answer = self
            .connection
            .call_method(
                Some(SYSTEMD),
                "/org/freedesktop/systemd1",
                Some("org.freedesktop.systemd1.Manager"),
                "ListUnitsByNames",
                &([unit].as_slice(),),
            )
            .await;
        let listed = answer.and_then(|answer| answer.body().deserialize::<Vec<Listed>>());
        let listed = listed.map_err(|e| Error::of_unit("list", unit, e))?;
        let (_, _, load, active, sub, ..) = listed
            .into_iter()
            .next()
            .ok_or_else(|| Error::NoSuchUnit(unit.to_owned()))?;
        Ok(Activity { load, active, sub })
    }

    /// Listens for changes of a unit's properties. The unit need not exist yet.
    ///
    /// # Errors
    /// As [`Bus::unit`].
    pub async fn watch_unit(&self, unit: &str) -> Result<UnitWatch> {
        let path = self.path_of(unit).await?;
        let stream = self
            .changes_of(&path)
            .await
            .map_err(|e| Error::of_unit("watch", unit, e))?;
        // A task of its own empties the queue even when nobody looks: zbus reads nothing more for
        // the whole connection while one queue is full.
        let pulse = Pulse::default();
        let raiser = pulse.clone();
        let task = tokio::spawn(async move {
            let mut stream = stream;
            while let Some(Ok(_)) = stream.next().await {
                raiser.raise(CHANGED);
            }
            raiser.raise(ENDED);
        });
        Ok(UnitWatch {
            bus: self.clone(),
            unit: unit.to_owned(),
            pulse,
            task: task.abort_handle(),
        })
    }

    /// The unit's place on the bus. systemd loads it for that, if it can.
    async fn path_of(&self, unit: &str) -> Result<OwnedObjectPath> {
        self.manager
            .load_unit(unit)
            .await
            .map_err(|e| Error::of_unit("load", unit, e))
    }

    async fn changes_of(&self, path: &OwnedObjectPath) -> zbus::Result<MessageStream> {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SYSTEMD)?
            .path(path)?
            .interface("org.freedesktop.DBus.Properties")?
            .member("PropertiesChanged")?
            .build();
        MessageStream::for_match_rule(rule, &self.connection, None).await
    }

    async fn read(&self, path: &OwnedObjectPath, name: &str) -> zbus::Result<UnitState> {
        let unit = UnitProxy::builder(&self.connection)
            .path(path)?
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let (load, active, sub, unit_file, id) = tokio::try_join!(
            unit.load_state(),
            unit.active_state(),
            unit.sub_state(),
            unit.unit_file_state(),
            unit.invocation_id(),
        )?;
        let service = match name.ends_with(".service") {
            true => Some(self.read_service(path).await?),
            false => None,
        };
        let invocation_id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(UnitState {
            load,
            active,
            sub,
            unit_file,
            invocation_id,
            service,
        })
    }

    async fn read_service(&self, path: &OwnedObjectPath) -> zbus::Result<ServiceState> {
        let service = ServiceProxy::builder(&self.connection)
            .path(path)?
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let (result, main_pid, exec_main_code, exec_main_status, restarts) = tokio::try_join!(
            service.result(),
            service.main_pid(),
            service.exec_main_code(),
            service.exec_main_status(),
            service.n_restarts(),
        )?;
        Ok(ServiceState {
            result,
            main_pid,
            exec_main_code,
            exec_main_status,
            restarts,
        })
    }
}

/// An ear on one unit, from [`Bus::watch_unit`]. Dropping it ends it.
#[derive(Debug)]
pub struct UnitWatch {
    bus: Bus,
    unit: String,
    pulse: Pulse,
    task: AbortHandle,
}

impl Drop for UnitWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl UnitWatch {
    /// Waits until systemd has told of a change since the last call, and reads the unit's state
    /// then. Several changes are folded into one, and a short-lived state may go unseen; the
    /// restart counter and the invocation ID show that there was one.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when the connection has broken; then connect anew.
    pub async fn next(&mut self) -> Result<UnitState> {
        if self.pulse.take().await & ENDED != 0 {
            // Stays ended, however often one asks.
            self.pulse.raise(ENDED);
            return Err(Error::lost());
        }
        let state = self.bus.unit(&self.unit).await;
        if state.is_err() {
            // The change was taken and not delivered.
            self.pulse.raise(CHANGED);
        }
        state
    }
}
