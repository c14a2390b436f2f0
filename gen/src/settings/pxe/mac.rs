//! The address of a network interface.

use std::fmt;
use std::str::FromStr;

use ::units::types::InvalidValue;

/// The 48 bits by which a network card is told from all others on its wire.
/// Source: IEEE 802, "Universal addresses".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// As iPXE writes it with `${mac:hexhyp}`, which is the name of a
    /// machine's files: `52-54-00-12-34-56`.
    pub fn hyphens(self) -> String {
        self.joined("-")
    }

    fn joined(self, separator: &str) -> String {
        self.0.map(|byte| format!("{byte:02x}")).join(separator)
    }
}

impl FromStr for Mac {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || {
            InvalidValue(format!(
                "{text:?} is not the address of a network card, as in 52:54:00:12:34:56"
            ))
        };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            let hex = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = (hex.then(|| u8::from_str_radix(part, 16).ok()).flatten()).ok_or_else(wrong)?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if bytes[0] & 1 == 1 {
            return Err(InvalidValue(format!(
                "{text} is the address of a group, and no network card has it: the first byte is odd"
            )));
        }
        if bytes == [0; 6] {
            return Err(InvalidValue(format!("{text} is no network card's address")));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_it_mean_the_same() {
        let mac: Mac = "52:54:00:AB:cd:01".parse().unwrap();
        assert_eq!("52-54-00-ab-cd-01".parse(), Ok(mac));
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
        assert_eq!(mac.hyphens(), "52-54-00-ab-cd-01");
    }

    #[test]
    fn what_no_network_card_has_is_refused() {
        for wrong in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "52:54:00:12:34:+5",
            "52:54:00:12:34:zz",
            "52-54:00:12:34:56",
            "525400123456",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
