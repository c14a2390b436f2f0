//! Where machines come from, and how much user-data it lets through.

use std::fmt;
use std::str::FromStr;

use units::types::InvalidValue;

/// A cloud, or whatever else hands user-data to machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Platform {
    /// Amazon EC2.
    Aws,
    /// Microsoft Azure: customData.
    Azure,
    /// Apache CloudStack.
    Cloudstack,
    /// DigitalOcean.
    Digitalocean,
    /// Google Compute Engine: a value of metadata.
    Gce,
    /// OpenStack: user_data.
    Openstack,
    /// Booting from the network: a web server.
    Pxe,
    /// VMware vSphere: guestinfo.
    Vsphere,
    /// Anything without a limit: a disk, a web server.
    #[default]
    Generic,
}

/// What a platform counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The bytes themselves.
    Raw,
    /// The text in base64.
    Base64,
    /// The text in base64 of the bytes in gzip.
    GzipBase64,
}

/// How much a platform takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// At most so many.
    pub bytes: usize,
    /// Of what.
    pub basis: Basis,
}

impl Platform {
    /// Every platform, by name.
    pub const ALL: [Self; 9] = [
        Self::Aws,
        Self::Azure,
        Self::Cloudstack,
        Self::Digitalocean,
        Self::Gce,
        Self::Openstack,
        Self::Pxe,
        Self::Vsphere,
        Self::Generic,
    ];

    /// The name in settings and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Cloudstack => "cloudstack",
            Self::Digitalocean => "digitalocean",
            Self::Gce => "gce",
            Self::Openstack => "openstack",
            Self::Pxe => "pxe",
            Self::Vsphere => "vsphere",
            Self::Generic => "generic",
        }
    }

    /// The limit, if there is one.
    pub fn limit(self) -> Option<Limit> {
        let (bytes, basis) = match self {
            Self::Aws => (16_384, Basis::Raw),
            Self::Azure => (65_535, Basis::Raw),
            Self::Cloudstack => (32_768, Basis::Base64),
            Self::Digitalocean => (65_536, Basis::Raw),
            Self::Gce => (262_144, Basis::Raw),
            Self::Openstack => (65_535, Basis::Base64),
            Self::Vsphere => (65_536, Basis::GzipBase64),
            Self::Pxe | Self::Generic => return None,
        };
        Some(Limit { bytes, basis })
    }

    /// Whether bytes that are no text get through.
    pub fn takes_gzip(self) -> bool {
        self != Self::Digitalocean
    }
}

impl Basis {
    /// What is counted, in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Base64 => "base64",
            Self::GzipBase64 => "gzip+base64",
        }
    }

    /// How much a document counts: `plain` bytes as they are sent, which are
    /// `gzipped` bytes in gzip.
    pub fn count(self, plain: usize, gzipped: usize) -> usize {
        let base64 = |bytes: usize| bytes.div_ceil(3) * 4;
        match self {
            Self::Raw => plain,
            Self::Base64 => base64(plain),
            Self::GzipBase64 => base64(gzipped),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let known = Self::ALL.into_iter().find(|p| p.as_str() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str);
            InvalidValue(format!(
                "unknown platform {text:?}: use one of {}",
                names.join(", ")
            ))
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_on_the_right_basis() {
        // The raw bytes that just fit, and one more that does not.
        for (platform, raw) in [
            (Platform::Aws, 16_384),
            (Platform::Azure, 65_535),
            (Platform::Cloudstack, 24_576),
            (Platform::Digitalocean, 65_536),
            (Platform::Gce, 262_144),
            (Platform::Openstack, 49_149),
        ] {
            let limit = platform.limit().unwrap();
            assert!(limit.basis.count(raw, 0) <= limit.bytes, "{platform}");
            assert!(limit.basis.count(raw + 1, 0) > limit.bytes, "{platform}");
        }
        let vsphere = Platform::Vsphere.limit().unwrap();
        assert!(vsphere.basis.count(1_000_000, 49_152) <= vsphere.bytes);
        assert!(vsphere.basis.count(0, 49_153) > vsphere.bytes);
        assert_eq!(Platform::Generic.limit(), None);
    }

    #[test]
    fn names_are_read_back() {
        for platform in Platform::ALL {
            assert_eq!(platform.as_str().parse(), Ok(platform));
        }
        let error = "ec2".parse::<Platform>().unwrap_err().to_string();
        assert!(error.contains("aws, azure"), "{error}");
    }
}
