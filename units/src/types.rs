//! Small value types that refuse bad values while they are parsed.
//!
//! Each one says in its error what was wrong and what is allowed, because the
//! same text reaches the operator through kgen's findings and knode's journal.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a value was refused; the text names the value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

/// Implements the string round trip (`Display`, serde) for a type with
/// `FromStr` and an `as_str`-like `Display`.
macro_rules! string_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(D::Error::custom)
            }
        }
    };
}

/// A machine's name in the cluster: one DNS label (RFC 1123), 1 to 63 bytes of
/// `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
///
/// Kubernetes would take dots as well; a label is what also works as a host
/// name, a certificate's name and a label value, so it is what we take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if is_dns_label(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidValue(format!(
            "node name {text:?} is not a DNS label: 1 to 63 characters a-z, 0-9 and '-', \
             beginning and ending with a letter or digit"
        )))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_serde!(NodeName);

/// Whether `text` is a DNS label of RFC 1123 in lower case.
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&bytes.len())
        && bytes.first().is_some_and(alnum)
        && bytes.last().is_some_and(alnum)
        && bytes.iter().all(|b| alnum(b) || *b == b'-')
}

/// What a machine does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Runs the control plane, by default etcd too, and a kubelet.
    Master,
    /// Runs pods.
    Node,
    /// Runs a member of a dedicated etcd ring and nothing of Kubernetes.
    Etcd,
}

impl Role {
    /// Every role, in the order in which machines are listed.
    pub const ALL: [Self; 3] = [Self::Etcd, Self::Master, Self::Node];

    /// The name used in settings, flags and unit names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Node => "node",
            Self::Etcd => "etcd",
        }
    }

    /// Whether machines of this role run a kubelet and join as Nodes.
    pub fn runs_kubelet(self) -> bool {
        matches!(self, Self::Master | Self::Node)
    }
}

impl FromStr for Role {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "master" | "control-plane" => Ok(Self::Master),
            "node" | "worker" | "minion" => Ok(Self::Node),
            "etcd" => Ok(Self::Etcd),
            _ => Err(InvalidValue(format!(
                "unknown role {text:?}: use master (control-plane), node (worker, minion) or etcd"
            ))),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

string_serde!(Role);

/// A processor architecture, by Kubernetes' (and Go's) name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Arch {
    /// x86_64.
    #[default]
    Amd64,
    /// aarch64.
    Arm64,
}

impl Arch {
    /// The name in download addresses and Node labels (`kubernetes.io/arch`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl FromStr for Arch {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "amd64" | "x86_64" => Ok(Self::Amd64),
            "arm64" | "aarch64" => Ok(Self::Arm64),
            _ => Err(InvalidValue(format!(
                "unknown architecture {text:?}: use amd64 (x86_64) or arm64 (aarch64)"
            ))),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

string_serde!(Arch);

/// The checksum that pins an artifact, written `sha256:HEX` or `sha512:HEX`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// SHA-256 (FIPS 180-4), 32 bytes.
    Sha256([u8; 32]),
    /// SHA-512 (FIPS 180-4), 64 bytes.
    Sha512([u8; 64]),
}

impl Digest {
    /// The algorithm's name as written before the colon.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The raw bytes: 32 for SHA-256, 64 for SHA-512.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The bytes in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        to_hex(self.as_bytes())
    }
}

impl FromStr for Digest {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| {
            InvalidValue(format!(
                "checksum {text:?} names no algorithm: write sha256:HEX or sha512:HEX"
            ))
        })?;
        match algorithm {
            "sha256" => Ok(Self::Sha256(from_hex(algorithm, hex)?)),
            "sha512" => Ok(Self::Sha512(from_hex(algorithm, hex)?)),
            _ => Err(InvalidValue(format!(
                "unknown checksum algorithm {algorithm:?}: use sha256 or sha512"
            ))),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

string_serde!(Digest);

/// `bytes` in lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

fn from_hex<const N: usize>(algorithm: &str, hex: &str) -> Result<[u8; N], InvalidValue> {
    let malformed = |what: String| {
        InvalidValue(format!(
            "malformed {algorithm} checksum: {what}; expected {} hexadecimal digits",
            2 * N
        ))
    };
    let digits: Vec<u8> = hex
        .chars()
        .map(|c| {
            c.to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
                .ok_or_else(|| malformed(format!("{c:?} is not a hexadecimal digit")))
        })
        .collect::<Result<_, _>>()?;
    if digits.len() != 2 * N {
        return Err(malformed(format!("it has {} digits", digits.len())));
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (pair[0] << 4) | pair[1];
    }
    Ok(bytes)
}

/// Permission bits of a file, written as a quoted four-digit octal string
/// (`"0600"`): YAML readers disagree about unquoted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(u32);

impl FileMode {
    /// Readable by everybody, writable by root.
    pub const PUBLIC: Self = Self(0o644);
    /// For root alone: anything with a private key or a token in it.
    pub const SECRET: Self = Self(0o600);
    /// A program or script.
    pub const EXECUTABLE: Self = Self(0o755);

    /// The bits as a number, at most 0o7777.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u32::from_str_radix(text, 8) {
            Ok(bits) if octal && (3..=4).contains(&text.len()) => Ok(Self(bits)),
            _ => Err(InvalidValue(format!(
                "file mode {text:?} is not three or four octal digits, as in \"0644\""
            ))),
        }
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

string_serde!(FileMode);

/// What a taint does to pods that do not tolerate it.
/// Source: Kubernetes API, core/v1 Taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaintEffect {
    /// No new pods.
    NoSchedule,
    /// No new pods where another node will do.
    PreferNoSchedule,
    /// No new pods, and running ones are evicted.
    NoExecute,
}

impl TaintEffect {
    /// The name in the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// A taint of a Node. Source: Kubernetes API, core/v1 Taint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// The taint's key, a qualified name.
    pub key: String,
    /// The taint's value; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// Whether `text` is a label key (a "qualified name"): an optional DNS
/// subdomain and `/`, then 1 to 63 characters.
/// Source: Kubernetes documentation, "Labels and Selectors".
pub fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(is_dns_label))
        && !name.is_empty()
        && is_label_value(name)
}

/// Whether `text` is a label value: empty, or up to 63 characters of letters,
/// digits, `-`, `_` and `.`, beginning and ending with a letter or digit.
pub fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.is_empty()
        || (bytes.len() <= 63
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_dns_labels() {
        for good in ["a", "node-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", &"x".repeat(64)] {
            let error = bad.parse::<NodeName>().unwrap_err().to_string();
            assert!(error.contains("DNS label"), "{error}");
        }
    }

    #[test]
    fn digests_round_trip_and_say_what_is_wrong() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for (bad, why) in [
            ("0a".repeat(32), "names no algorithm"),
            (format!("md5:{}", "0a".repeat(16)), "unknown checksum"),
            (format!("sha256:{}", "0a".repeat(31)), "62 digits"),
            (format!("sha256:{}", "0g".repeat(32)), "'g'"),
        ] {
            let error = bad.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn modes_are_quoted_octal() {
        assert_eq!("0600".parse::<FileMode>().unwrap(), FileMode::SECRET);
        assert_eq!(FileMode::PUBLIC.to_string(), "0644");
        for bad in ["", "8", "0o644", "77777", "+644"] {
            assert!(bad.parse::<FileMode>().is_err(), "{bad}");
        }
    }

    #[test]
    fn label_grammar() {
        for good in ["a", "example.com/a.b_c", "a/B"] {
            assert!(is_qualified_name(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "Ex.com/a", "-a"] {
            assert!(!is_qualified_name(bad), "{bad}");
        }
        assert!(is_label_value(""));
        assert!(!is_label_value("a b"));
    }
}
