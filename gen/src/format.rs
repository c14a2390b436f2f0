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
}

impl Format {
    /// The name in settings and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coreos => "coreos",
            Self::CloudInit => "cloud-init",
        }
    }
}

impl FromStr for Format {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "coreos" | "coreos-cloudinit" => Ok(Self::Coreos),
            "cloud-init" => Ok(Self::CloudInit),
            _ => Err(InvalidValue(format!(
                "unknown format {text:?}: use coreos or cloud-init"
            ))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
