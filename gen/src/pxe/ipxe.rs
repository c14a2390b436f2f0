//! iPXE's scripts: one that every machine begins with, and each machine's own.
//!
//! Source: iPXE documentation, "Scripting" and the reference of its commands.

use super::{Deployment, Machine};

/// The script that every machine begins with.
pub const BOOT: &str = "boot.ipxe";

/// How often an unknown machine asks, ten seconds apart, before it boots from
/// its disk: somebody may be about to write it down.
const TRIES: u8 = 30;

/// The name of a machine's script.
pub fn name(machine: &Machine) -> String {
    format!("{}.ipxe", machine.mac.hyphens())
}

/// The script that every machine begins with: it goes on with the machine's
/// own, which the address of a network card tells.
pub fn boot(d: &Deployment) -> String {
    let (cluster, server) = (&d.cluster, &d.server);
    format!(
        "#!ipxe
# Written by kgen render: how machines of {cluster} boot.
set tries:int32 0
:own
# The card that this came by, and then the others.
chain --autofree {server}/${{netX/mac:hexhyp}}.ipxe && exit ||
isset ${{net0/mac}} && chain --autofree {server}/${{net0/mac:hexhyp}}.ipxe && exit ||
isset ${{net1/mac}} && chain --autofree {server}/${{net1/mac:hexhyp}}.ipxe && exit ||
isset ${{net2/mac}} && chain --autofree {server}/${{net2/mac:hexhyp}}.ipxe && exit ||
isset ${{net3/mac}} && chain --autofree {server}/${{net3/mac:hexhyp}}.ipxe && exit ||
echo
echo kgen: {server} has no script for ${{netX/mac}}
echo kgen: if this machine is of {cluster}, give it mac: ${{netX/mac}} in cluster.yaml, and kgen render
inc tries
iseq ${{tries}} {TRIES} && goto disk ||
prompt --key 0x1b --timeout 10000 Press Escape to boot from the disk now && goto disk ||
goto own
:disk
echo kgen: booting from the disk
exit
"
    )
}

/// A machine's own script: until there is a kernel, it tries.
pub fn own(d: &Deployment, machine: &Machine) -> String {
    let (name, mac, server) = (&machine.name, machine.mac, &d.server);
    let (kernel, initrd, line) = (&machine.kernel, &machine.initrd, &machine.command_line);
    format!(
        "#!ipxe
# Written by kgen render: {name} ({mac})
:try
echo kgen: this is {name}
imgfree
kernel {server}/{kernel} {line} || goto again
initrd --name {initrd} {server}/{initrd} || goto again
boot || goto again
:again
echo kgen: {name} did not boot, once more in 10 seconds
sleep 10
goto try
"
    )
}
