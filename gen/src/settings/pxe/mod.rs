//! `pxe`: how machines without anything on their disks boot from the network.

mod check;
mod mac;
mod values;

use std::net::Ipv4Addr;

use ::units::types::Arch;
use ipnet::Ipv4Net;

pub use check::{check, warnings};
pub use mac::Mac;
pub use values::BaseUrl;
use values::{addresses, file, folder, interface, ipv4, net, words};

use crate::format::Format;
use crate::yaml::{At, Node, Object, Reader};

/// What a kernel on x86_64 takes at most, without the NUL at its end; iPXE cuts
/// off the rest without a word. Source: Linux, `COMMAND_LINE_SIZE`.
pub const COMMAND_LINE: usize = 2046;
/// Where Debian's package `ipxe` has its programs.
const TFTP_ROOT: &str = "/usr/lib/ipxe";

/// How machines boot from the network.
#[derive(Debug, Clone)]
pub struct Pxe {
    /// Where `pxe` stands.
    pub place: At<()>,
    /// Where scripts, kernels and initrds are found.
    pub server: At<BaseUrl>,
    /// Where documents are found; absent: at the server.
    pub documents: Option<At<BaseUrl>>,
    /// What is booted, by processor.
    pub images: Vec<(Arch, Boot)>,
    /// More words for the kernel.
    pub cmdline: At<String>,
    /// What dnsmasq is told, if it is asked for.
    pub dhcp: Option<Dhcp>,
}

/// A kernel and the initrd that it boots with: names of files at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel.
    pub kernel: String,
    /// The initrd.
    pub initrd: String,
}

/// What dnsmasq is told.
#[derive(Debug, Clone)]
pub struct Dhcp {
    /// The interface on the machines' network.
    pub interface: At<String>,
    /// That network.
    pub network: At<Ipv4Net>,
    /// The addresses that are handed out to whom none belongs; absent: another
    /// DHCP server gives addresses, and this one only says what to boot.
    pub range: Option<At<(Ipv4Addr, Ipv4Addr)>>,
    /// The machines' router.
    pub router: Option<At<Ipv4Addr>>,
    /// The machines' name servers.
    pub dns: Vec<At<Ipv4Addr>>,
    /// The folder with iPXE's programs.
    pub tftp_root: String,
}

impl Pxe {
    /// What machines with this processor boot.
    pub fn boot(&self, arch: Arch) -> Boot {
        let typed = self.images.iter().find(|(a, _)| *a == arch);
        typed.map_or_else(|| default_boot(arch), |(_, boot)| boot.clone())
    }

    /// Where documents are found.
    pub fn documents(&self) -> &BaseUrl {
        &self.documents.as_ref().unwrap_or(&self.server).value
    }

    /// What a machine's kernel is told. `initrd=` is for EFI, where the kernel
    /// itself asks for the file. Source: iPXE documentation, "initrd".
    pub fn command_line(&self, format: Format, arch: Arch, mac: Mac) -> String {
        let documents = format!("{}/{}", self.documents(), mac.hyphens());
        let reader = match format {
            // Source: cloud-init documentation, "NoCloud", kernel command line.
            Format::CloudInit => format!("ds=nocloud;s={documents}/"),
            Format::Coreos => format!("cloud-config-url={documents}/user-data"),
            // Source: Ignition documentation, "Supported platforms" (metal);
            // Flatcar documentation, "Booting Flatcar via iPXE".
            Format::Ignition => format!(
                "ignition.firstboot ignition.platform.id=metal flatcar.first_boot=1 \
                 ignition.config.url={documents}/user-data"
            ),
        };
        let line = format!("initrd={} {reader}", self.boot(arch).initrd);
        match self.cmdline.value.as_str() {
            "" => line,
            more => format!("{line} {more}"),
        }
    }
}

fn default_boot(arch: Arch) -> Boot {
    let (kernel, initrd) = match arch {
        Arch::Amd64 => ("vmlinuz", "initrd.img"),
        Arch::Arm64 => ("vmlinuz-arm64", "initrd-arm64.img"),
    };
    Boot {
        kernel: kernel.to_owned(),
        initrd: initrd.to_owned(),
    }
}

/// Reads `pxe`.
pub fn read(r: &mut Reader, node: &Node, path: &str) -> Option<Pxe> {
    let mut o = r.object(node, path)?;
    let place = At {
        value: (),
        span: o.span.clone(),
        path: path.to_owned(),
    };
    let server = o.required(r, "server", Reader::parse);
    let documents = o.read(r, "documents", Reader::parse);
    let images = images(r, &mut o);
    let cmdline = o.read(r, "cmdline", words).unwrap_or_else(|| At {
        value: String::new(),
        span: place.span.clone(),
        path: format!("{path}.cmdline"),
    });
    let dhcp = match o.get("dhcp") {
        Some((node, path)) => dhcp(r, node, &path),
        None => None,
    };
    o.finish(r);
    Some(Pxe {
        place,
        server: server?,
        documents,
        images,
        cmdline,
        dhcp,
    })
}

/// Reads the `mac` of a machine.
pub fn mac(r: &mut Reader, o: &mut Object<'_>) -> Option<At<Mac>> {
    o.read(r, "mac", Reader::parse)
}

fn images(r: &mut Reader, o: &mut Object<'_>) -> Vec<(Arch, Boot)> {
    let Some((node, path)) = o.get("images") else {
        return Vec::new();
    };
    let Some(mut o) = r.object(node, &path) else {
        return Vec::new();
    };
    let mut images = Vec::new();
    for (arch, key) in [(Arch::Amd64, "amd64"), (Arch::Arm64, "arm64")] {
        let Some((node, path)) = o.get(key) else {
            continue;
        };
        let Some(mut o) = r.object(node, &path) else {
            continue;
        };
        let mut boot = default_boot(arch);
        for (key, name) in [("kernel", &mut boot.kernel), ("initrd", &mut boot.initrd)] {
            if let Some(typed) = o.read(r, key, file) {
                *name = typed.value;
            }
        }
        o.finish(r);
        images.push((arch, boot));
    }
    o.finish(r);
    images
}

fn dhcp(r: &mut Reader, node: &Node, path: &str) -> Option<Dhcp> {
    let mut o = r.object(node, path)?;
    let interface = o.required(r, "interface", interface);
    let network = o.required(r, "network", net);
    let range = o.read(r, "range", addresses);
    let router = o.read(r, "router", ipv4);
    let dns = match o.get("dns") {
        Some((node, path)) => r.list(node, &path, ipv4),
        None => Vec::new(),
    };
    let tftp_root = o.read(r, "tftpRoot", folder);
    o.finish(r);
    Some(Dhcp {
        interface: interface?,
        network: network?,
        range,
        router,
        dns,
        tftp_root: tftp_root.map_or_else(|| TFTP_ROOT.to_owned(), |folder| folder.value),
    })
}
