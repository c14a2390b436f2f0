//! Machines: availability sets, named machines, scale sets.

use serde_json::{Value, json};

use super::{COMPUTE, id, parameter, reference, resource, zones};
use crate::azure::{Deployment, Place, ScaleSet, Vm};
use crate::settings::Image;

const SETS: &str = "Microsoft.Compute/availabilitySets";
const INTERFACES: &str = "Microsoft.Network/networkInterfaces";
const VNETS: &str = "Microsoft.Network/virtualNetworks";
const BALANCERS: &str = "Microsoft.Network/loadBalancers";
/// Update domains of an availability set: what Azure has by default.
pub(in crate::azure) const UPDATE_DOMAINS: u8 = 5;

/// Everything that computes.
pub fn resources(d: &Deployment) -> Vec<Value> {
    let set = |(role, domains): &(units::types::Role, u8)| {
        let properties = json!({
            "platformFaultDomainCount": domains,
            "platformUpdateDomainCount": UPDATE_DOMAINS
        });
        let mut set = resource(d, SETS, COMPUTE, &d.set(*role), Vec::new(), properties);
        set["sku"] = json!({"name": "Aligned"});
        set
    };
    let mut all: Vec<Value> = d.sets.iter().map(set).collect();
    all.extend(d.machines.iter().map(|vm| machine(d, vm)));
    all.extend(d.pools.iter().map(|pool| scale_set(d, pool)));
    all
}

fn machine(d: &Deployment, vm: &Vm) -> Value {
    let mut depends_on = vec![id(INTERFACES, &[&vm.interface()])];
    let mut os = login(d, &vm.document);
    os["computerName"] = json!(vm.name);
    let mut disk = disk(d);
    disk["deleteOption"] = json!("Delete");
    let mut properties = json!({
        "hardwareProfile": {"vmSize": format!("[parameters('{}')]", size_parameter(d, vm))},
        "storageProfile": {"imageReference": image(&vm.image), "osDisk": disk},
        "osProfile": os,
        "networkProfile": {"networkInterfaces": [{
            "id": id(INTERFACES, &[&vm.interface()]),
            "properties": {"primary": true, "deleteOption": "Delete"}
        }]},
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": true}}
    });
    if vm.place == Place::Set {
        properties["availabilitySet"] = reference(SETS, &[&d.set(vm.role)]);
        depends_on.push(id(SETS, &[&d.set(vm.role)]));
    }
    let kind = "Microsoft.Compute/virtualMachines";
    let mut machine = resource(d, kind, COMPUTE, &vm.name, depends_on, properties);
    machine["tags"]["role"] = json!(vm.role.as_str());
    if let Place::Zone(zone) = vm.place {
        machine["zones"] = zones(&[zone]);
    }
    machine
}

/// The parameter with the size of a machine: one for each role, and more where
/// a role has several. The schema takes a literal only if it is one of the
/// sizes of years ago.
pub fn size_parameter(d: &Deployment, vm: &Vm) -> String {
    let mut sizes: Vec<&str> = Vec::new();
    for other in d.machines.iter().filter(|other| other.role == vm.role) {
        if !sizes.contains(&other.size.as_str()) {
            sizes.push(&other.size);
        }
    }
    match sizes.iter().position(|size| *size == vm.size) {
        Some(nth) if nth > 0 => format!("{}Size{}", vm.role, nth + 1),
        _ => format!("{}Size", vm.role),
    }
}

/// Machines come and go one by one, and each joins: so none is made to be
/// thrown away, and none is changed while it runs.
fn scale_set(d: &Deployment, pool: &ScaleSet) -> Value {
    let (lb, vnet) = (d.named("lb"), d.named("vnet"));
    let mut os = login(d, &pool.name);
    os["computerNamePrefix"] = json!(pool.prefix());
    let pools = "Microsoft.Network/loadBalancers/backendAddressPools";
    let interface = json!({"name": "primary", "properties": {
        "primary": true,
        "enableIPForwarding": true,
        "ipConfigurations": [{"name": "primary", "properties": {
            "primary": true,
            "privateIPAddressVersion": "IPv4",
            "subnet": reference("Microsoft.Network/virtualNetworks/subnets", &[&vnet, &pool.subnet]),
            "loadBalancerBackendAddressPools": [reference(pools, &[&lb, "machines"])]
        }}]
    }});
    let properties = json!({
        "orchestrationMode": "Uniform",
        "overprovision": false,
        "singlePlacementGroup": false,
        "upgradePolicy": {"mode": "Manual"},
        "virtualMachineProfile": {
            "storageProfile": {"imageReference": image(&pool.image), "osDisk": disk(d)},
            "osProfile": os,
            "networkProfile": {"networkInterfaceConfigurations": [interface]},
            "diagnosticsProfile": {"bootDiagnostics": {"enabled": true}}
        }
    });
    let depends_on = vec![id(VNETS, &[&vnet]), id(BALANCERS, &[&lb])];
    let kind = "Microsoft.Compute/virtualMachineScaleSets";
    let mut set = resource(d, kind, COMPUTE, &pool.name, depends_on, properties);
    set["sku"] = json!({"name": pool.size, "tier": "Standard", "capacity": pool.count});
    set["tags"]["role"] = json!("node");
    if !d.zones.is_empty() {
        set["zones"] = zones(&d.zones);
    }
    set
}

/// Who logs in, and with what a machine boots. Azure wants base64, and the
/// parameter has it.
fn login(d: &Deployment, document: &str) -> Value {
    let path = format!("/home/{}/.ssh/authorized_keys", d.user);
    let key = |key: &String| json!({"path": path, "keyData": key});
    let keys: Vec<Value> = d.keys.iter().map(key).collect();
    json!({
        "adminUsername": d.user,
        "customData": format!("[parameters('{}')]", parameter(document)),
        "linuxConfiguration": {
            "disablePasswordAuthentication": true,
            "ssh": {"publicKeys": keys}
        }
    })
}

fn disk(d: &Deployment) -> Value {
    let mut disk = json!({
        "createOption": "FromImage",
        "managedDisk": {"storageAccountType": d.disk.kind}
    });
    if let Some(gb) = d.disk.gb {
        disk["diskSizeGB"] = json!(gb);
    }
    disk
}

fn image(image: &Image) -> Value {
    match image {
        Image::Urn {
            publisher,
            offer,
            sku,
            version,
        } => json!({"publisher": publisher, "offer": offer, "sku": sku, "version": version}),
        Image::Id(id) => json!({"id": id}),
        Image::Community(id) => json!({"communityGalleryImageId": id}),
    }
}
