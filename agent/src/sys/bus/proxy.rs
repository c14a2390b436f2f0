//! Our own view of systemd's properties: the few that we read, as plain strings, uncached.

use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::zvariant::OwnedValue;

use super::{Error, Result};

/// Where systemd lives on the bus.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";

/// What every unit has.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1",
    assume_defaults = false
)]
pub(super) trait Unit {
    #[zbus(property(emits_changed_signal = "false"))]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn sub_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn unit_file_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"), name = "InvocationID")]
    fn invocation_id(&self) -> zbus::Result<Vec<u8>>;
}

/// What only services have.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Service",
    default_service = "org.freedesktop.systemd1",
    assume_defaults = false
)]
pub(super) trait Service {
    #[zbus(property(emits_changed_signal = "false"))]
    fn result(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"), name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn exec_main_code(&self) -> zbus::Result<i32>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn exec_main_status(&self) -> zbus::Result<i32>;
    #[zbus(property(emits_changed_signal = "false"), name = "NRestarts")]
    fn n_restarts(&self) -> zbus::Result<u32>;
}

pub(super) async fn clock_synchronised(connection: &zbus::Connection) -> Result<Option<bool>> {
    match ask_timedated(connection).await {
        Ok(value) => Ok(bool::try_from(value).ok()),
        Err(zbus::fdo::Error::ServiceUnknown(_) | zbus::fdo::Error::NameHasNoOwner(_)) => Ok(None),
        Err(e) => Err(Error::new(
            || "asking whether the clock is synchronised".to_owned(),
            e.into(),
        )),
    }
}

async fn ask_timedated(connection: &zbus::Connection) -> zbus::fdo::Result<OwnedValue> {
    let timedated = PropertiesProxy::builder(connection)
        .destination("org.freedesktop.timedate1")?
        .path("/org/freedesktop/timedate1")?
        .build()
        .await?;
    timedated
        .get(
            InterfaceName::from_static_str_unchecked("org.freedesktop.timedate1"),
            "NTPSynchronized",
        )
        .await
}

/// systemd's version as it says it: `257.9-1~deb13u1`.
pub(super) async fn systemd_version(connection: &zbus::Connection) -> Result<String> {
    let ask = async {
        let manager = PropertiesProxy::builder(connection)
            .destination(SYSTEMD)?
            .path("/org/freedesktop/systemd1")?
            .build()
            .await?;
        let interface =
            InterfaceName::from_static_str_unchecked("org.freedesktop.systemd1.Manager");
        manager.get(interface, "Version").await
    };
    let value: zbus::fdo::Result<OwnedValue> = ask.await;
    value
        .map_err(zbus::Error::from)
        .and_then(|value| Ok(String::try_from(value)?))
        .map_err(|e| Error::new(|| "asking for systemd's version".to_owned(), e))
}
