//! The languages of user-data, by name.

use std::fmt;
use std::str::FromStr;

use units::types::InvalidValue;

/// In which language user-data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// coreos-cloudinit, as on Flatcar.
    #[default]
    Coreos,
    /// cloud-init, as on Debian, Ubuntu and most others.
    CloudInit,
    /// Ignition, as on Fedora CoreOS and Flatcar.
    Ignition,
}

impl Format {
    /// Every language.
    pub const ALL: [Self; 3] = [Self::Coreos, Self::CloudInit, Self::Ignition];

    /// The name in settings and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coreos => "coreos",
            Self::CloudInit => "cloud-init",
            Self::Ignition => "ignition",
        }
    }
}

impl FromStr for Format {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "coreos" | "coreos-cloudinit" => Ok(Self::Coreos),
            "cloud-init" => Ok(Self::CloudInit),
            "ignition" => Ok(Self::Ignition),
            _ => Err(InvalidValue(format!(
                "unknown format {text:?}: use coreos, cloud-init or ignition"
            ))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
