//! Boot images as kimage builds them: two builds have the same bytes, and machines boot
//! the disk image to a knode that asks for its master, with OpenStack's config drive by
//! BIOS and with Azure's CD by UEFI. The documents are found by the real cloud-init. That
//! of the network boot is in the test `pxe`. (P53)

mod fabric;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fabric::Fabric;
use images::catalogue::{self, Catalogue, Content};
use serde_json::json;
use tests::boot_images::{self, AwaitedMaster};
use tests::cluster::{Cluster, Machine as Typed};
use tests::qemu::{Card, Dhcp, Machine, UEFI, cd, disk};
use tests::scenario::on_cluster;
use tests::{cache, report};

const MACHINES: [Typed; 2] = [
    Typed {
        name: "master",
        role: "master",
    },
    Typed {
        name: "node-1",
        role: "node",
    },
];
const MAC: &str = "52:54:00:00:63:1c";
/// What the harness' settings call the master's and node-1's.
const MASTER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 11);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 12);
/// MiB of memory, as the smallest machines of clouds have.
const MEMORY: u32 = 1024;
/// In software emulation, and with others on the same machine.
const BOOT: Duration = Duration::from_secs(1500);
/// How an Azure machine is known, by its firmware.
const AZURE: &str = "7783-7084-3265-9085-8269-3286-77";

/// The images that kimage makes.
const FILES: [&str; 4] = ["disk.qcow2", "disk.raw", "initrd.img", "vmlinuz"];

/// Goes through the steps with a cluster's settings, the images, and a folder of the
/// test's own, or skips the test by its name.
fn with_images(name: &str, steps: impl FnOnce(&Cluster, &Path, &Path) -> Result<()>) -> Result<()> {
    if let Some(reason) = missing() {
        report::skip(name, &reason);
        return Ok(());
    }
    let steps = |cluster: &mut Cluster| {
        let images = boot_images::files(&cluster.programs().knode)?;
        let folder = tempfile::tempdir_in(cache::directory())?;
        steps(cluster, &images, folder.path())
    };
    on_cluster(name, || Cluster::new(&MACHINES), steps)
}

fn catalogue(folder: &Path) -> Result<Catalogue> {
    let text = fs::read_to_string(folder.join(catalogue::NAME))?;
    serde_json::from_str(&text).context("reading the catalogue")
}

#[test]
fn two_builds_have_the_same_bytes() -> Result<()> {
    with_images(
        "two_builds_have_the_same_bytes",
        |cluster, images, folder| {
            let knode = &cluster.programs().knode;
            let second = folder.join("second");
            boot_images::kimage(knode, &second)?;
            let mut first = images.to_owned();
            if catalogue(&first)?.snapshot != catalogue(&second)?.snapshot {
                // Debian has new packages since the first.
                first = folder.join("first");
                boot_images::kimage(knode, &first)?;
            }
            // What the catalogues say of the images is what these are.
            let [one, two] = [&first, &second].map(|folder| catalogue(folder));
            let (one, two) = (one?, two?);
            ensure!(one == two, "they differ: {one:#?} and {two:#?}");
            ensure!(two.files.keys().eq(&FILES), "{:?}", two.files.keys());
            for (name, told) in &two.files {
                let found = Content::of(&second.join(name))?;
                ensure!(*told == found, "the catalogue says of {name}: {told:?}");
                println!("{name}: {} bytes, sha256 {}", told.size, told.sha256);
            }
            for package in ["cloud-init", "containerd", "runc", "systemd"] {
                ensure!(two.packages.contains_key(package), "no {package}");
            }
            ensure!(two.knode == Content::of(knode)?, "another knode");
            ensure!(!second.join(".unfinished").exists(), "something was left");
            Ok(())
        },
    )
}

#[test]
fn a_disk_finds_openstacks_config_drive() -> Result<()> {
    with_images(
        "a_disk_finds_openstacks_config_drive",
        |cluster, images, folder| {
            let drive = folder.join("drive");
            let latest = drive.join("openstack/latest");
            fs::create_dir_all(&latest)?;
            let meta = json!({"uuid": "d8e02d56-2648-49a3-bf97-6be8f1204f38", "name": "node-1", "hostname": "node-1"});
            let network = json!({
                "links": [{"id": "l0", "type": "phy", "ethernet_mac_address": MAC, "mtu": 1500}],
                "networks": [{
                    "id": "n0", "link": "l0", "type": "ipv4", "ip_address": ADDRESS,
                    "netmask": "255.255.255.0", "routes": [],
                }],
                "services": [],
            });
            fs::write(latest.join("meta_data.json"), meta.to_string())?;
            fs::write(latest.join("network_data.json"), network.to_string())?;
            fs::write(
                latest.join("user_data"),
                cluster.user_data("node-1", "cloud-init")?,
            )?;

            let mut flags = disk(&images.join("disk.qcow2"), folder)?;
            flags.extend(cd("config-2", &drive, folder)?);
            let network = cluster.network();
            let master = AwaitedMaster::listen(cluster, MASTER)?;
            let mut machine = Machine::start(network, card("drive"), MEMORY, &flags, folder)?;
            machine.says(&["EXT4-fs (vda3): resized filesystem"], BOOT)?;
            master.is_asked_by(ADDRESS, cluster, &mut machine, BOOT)?;
            machine.says(&["finished at", "DataSourceConfigDrive"], BOOT)?;
            Ok(())
        },
    )
}

#[test]
fn a_disk_finds_azures_document() -> Result<()> {
    with_images("a_disk_finds_azures_document", |cluster, images, folder| {
        let drive = folder.join("drive");
        fs::create_dir_all(&drive)?;
        let document = STANDARD.encode(cluster.user_data("node-1", "cloud-init")?);
        fs::write(drive.join("ovf-env.xml"), ovf(&document))?;

        let mut flags = disk(&images.join("disk.qcow2"), folder)?;
        flags.extend(cd("rd_rdfe_stable", &drive, folder)?);
        flags.extend(["-bios".to_owned(), UEFI.to_owned()]);
        flags.extend(["-smbios".to_owned(), format!("type=3,asset={AZURE}")]);
        flags.extend(["-uuid".to_owned(), fabric::VM.to_owned()]);
        let network = cluster.network();
        let address = ADDRESS.to_string();
        let options = fabric::dhcp_options(network.gateway());
        let _dhcp = Dhcp::start(network, MAC, &address, &options, folder)?;
        let fabric = Fabric::start(network, MAC, &address)?;
        let master = AwaitedMaster::listen(cluster, MASTER)?;
        let mut machine = Machine::start(network, card("azure"), MEMORY, &flags, folder)?;
        master.is_asked_by(ADDRESS, cluster, &mut machine, BOOT)?;
        machine.says(&["finished at", "DataSourceAzure"], BOOT)?;
        let report = fabric.report(BOOT)?;
        ensure!(report.contains("<State>Ready</State>"), "{report}");
        without_warnings(&machine)
    })
}

/// Whether cloud-init did all of the document that is its own: what fails is told on the
/// console, and leaves the machine degraded.
fn without_warnings(machine: &Machine) -> Result<()> {
    let console = machine.console();
    let lines = console.lines().filter(|line| line.contains("cloud-init["));
    let warnings: Vec<&str> = lines
        .filter(|line| line.contains("[WARNING]:") || line.contains("[ERROR]:"))
        .collect();
    ensure!(warnings.is_empty(), "{}", warnings.join("\n"));
    Ok(())
}

/// The machine's card; its disk is what it boots from.
fn card(name: &str) -> Card<'_> {
    let rom = false;
    Card {
        name,
        mac: MAC,
        rom,
    }
}

/// What the fabric of Azure writes for a new machine.
fn ovf(document: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="utf-8"?>
<ns0:Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:ns0="http://schemas.dmtf.org/ovf/environment/1" xmlns:ns1="http://schemas.microsoft.com/windowsazure" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <ns1:ProvisioningSection>
    <ns1:Version>1.0</ns1:Version>
    <ns1:LinuxProvisioningConfigurationSet>
      <ns1:ConfigurationSetType>LinuxProvisioningConfiguration</ns1:ConfigurationSetType>
      <ns1:HostName>node-1</ns1:HostName>
      <ns1:UserName>azureuser</ns1:UserName>
      <ns1:DisableSshPasswordAuthentication>true</ns1:DisableSshPasswordAuthentication>
      <ns1:CustomData>{document}</ns1:CustomData>
    </ns1:LinuxProvisioningConfigurationSet>
  </ns1:ProvisioningSection>
  <ns1:PlatformSettingsSection>
    <ns1:Version>1.0</ns1:Version>
    <ns1:PlatformSettings>
      <ns1:ProvisionGuestAgent>false</ns1:ProvisionGuestAgent>
    </ns1:PlatformSettings>
  </ns1:PlatformSettingsSection>
</ns0:Environment>
"#
    )
}

/// What keeps images from being built and booted here.
fn missing() -> Option<String> {
    if let Some(reason) = report::nodes_missing() {
        return Some(reason);
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("the images are for x86_64".to_owned());
    }
    let absent = |program: &&str| Command::new(program).arg("--version").output().is_err();
    let programs = [
        "qemu-system-x86_64",
        "qemu-img",
        "dnsmasq",
        "genisoimage",
        "mksquashfs",
    ];
    let absent: Vec<&str> = programs.into_iter().filter(absent).collect();
    if !absent.is_empty() {
        return Some(format!("not installed: {}", absent.join(", ")));
    }
    let needed = [UEFI, "/dev/net/tun"];
    let needed = needed.into_iter().find(|path| !Path::new(path).exists())?;
    Some(format!("there is no {needed}"))
}
