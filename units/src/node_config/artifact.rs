//! What a machine downloads, and from whom.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::Digest;

/// How an artifact's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// The bytes are the one file.
    #[serde(rename = "plain")]
    Plain,
    /// The one file, compressed with gzip (RFC 1952).
    #[serde(rename = "gz")]
    Gz,
    /// The one file, compressed with xz.
    #[serde(rename = "xz")]
    Xz,
    /// The one file, compressed with Zstandard (RFC 8878).
    #[serde(rename = "zst")]
    Zst,
    /// A tar archive.
    #[serde(rename = "tar")]
    Tar,
    /// A tar archive, compressed with gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// A tar archive, compressed with xz.
    #[serde(rename = "tar.xz")]
    TarXz,
    /// A tar archive, compressed with Zstandard.
    #[serde(rename = "tar.zst")]
    TarZst,
}

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// They are not.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz file format.
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Packing {
    /// Every one of them.
    pub const ALL: [Self; 8] = [
        Self::Plain,
        Self::Gz,
        Self::Xz,
        Self::Zst,
        Self::Tar,
        Self::TarGz,
        Self::TarXz,
        Self::TarZst,
    ];

    /// The name in node.yaml and kgen.lock.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gz => "gz",
            Self::Xz => "xz",
            Self::Zst => "zst",
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarXz => "tar.xz",
            Self::TarZst => "tar.zst",
        }
    }

    /// Whether there are several files in it.
    pub fn is_archive(self) -> bool {
        matches!(self, Self::Tar | Self::TarGz | Self::TarXz | Self::TarZst)
    }

    /// How the bytes are compressed.
    pub fn compression(self) -> Compression {
        match self {
            Self::Plain | Self::Tar => Compression::None,
            Self::Gz | Self::TarGz => Compression::Gzip,
            Self::Xz | Self::TarXz => Compression::Xz,
            Self::Zst | Self::TarZst => Compression::Zstd,
        }
    }
}

/// Something to download, pinned by its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Artifact {
    /// For messages: `kubelet`.
    pub name: String,
    /// For messages: `1.36.1`.
    pub version: String,
    /// Where it can be had; tried in this order.
    pub urls: Vec<String>,
    /// The checksum of the bytes as downloaded.
    pub digest: Digest,
    /// How many bytes are downloaded, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How the bytes are packed.
    pub packing: Packing,
    /// Which files of it go where; all become mode 0755.
    pub files: Vec<ArtifactFile>,
}

/// Machines that offer each other what they downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Neighbours {
    /// The port of each machine's own address at which it offers its downloads,
    /// by HTTP: `/sha256/HEX`.
    pub port: u16,
    /// Who is asked before any mirror, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ArtifactFile {
    /// Its path in the archive, without a leading `./`; absent for plain ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Where it is installed: an absolute path, a link into the store.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeConfig;

    /// A document without neighbours says nothing of them, as older ones do.
    #[test]
    fn neighbours_are_read_where_there_are_some() {
        let sample = include_str!("../../testdata/node-v1.yaml");
        let mut config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        assert_eq!(config.neighbours, None);
        let text = serde_yaml::to_string(&config).unwrap();
        assert!(!text.contains("neighbours"), "{text}");
        let more = "neighbours: {port: 7444, addresses: [10.0.0.11, 'fd00::1']}\n";
        let with: NodeConfig = serde_yaml::from_str(&format!("{sample}{more}")).unwrap();
        config.neighbours = Some(Neighbours {
            port: 7444,
            addresses: vec!["10.0.0.11".parse().unwrap(), "fd00::1".parse().unwrap()],
        });
        assert_eq!(with, config);
    }

    #[test]
    fn packings_have_their_names() {
        for packing in Packing::ALL {
            let name = serde_json::to_value(packing).unwrap();
            assert_eq!(name, packing.as_str());
        }
    }
}
