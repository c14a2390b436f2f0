//! Machines, in commands.

use super::lines::{Command, Lines};
use super::{here, variable};
use crate::azure::template::UPDATE_DOMAINS;
use crate::azure::{Deployment, Place, ScaleSet, Vm};

/// Availability sets, interfaces, machines and scale sets.
pub fn lines(d: &Deployment, lines: &mut Lines) {
    lines.part("Machines: az puts their documents into base64.");
    lines.raw("subscription=$(az account show --query id --output tsv)");
    lines.raw(
        "balancers=/subscriptions/$subscription/resourceGroups/$group/providers/Microsoft.Network/loadBalancers",
    );
    for (role, domains) in &d.sets {
        let (set, name) = ("vm availability-set", d.set(*role));
        let create = Command::new(&format!("{set} create"))
            .with("--name", &name)
            .with("--platform-fault-domain-count", domains.to_string())
            .with("--platform-update-domain-count", UPDATE_DOMAINS.to_string());
        let create = here(create);
        let list = Command::new(&format!("{set} list"));
        lines.once(
            &format!("availability set of the role {role}"),
            &name,
            &list,
            &create,
        );
    }
    for vm in &d.machines {
        lines.part(&vm.name);
        machine(d, vm, lines);
    }
    for pool in &d.pools {
        lines.part(&format!("The pool {}.", pool.name));
        scale_set(d, pool, lines);
    }
}

fn machine(d: &Deployment, vm: &Vm, lines: &mut Lines) {
    let of = |balancer: &str, what: &str, name: &str| {
        variable(&format!("$balancers/{balancer}/{what}/{name}"))
    };
    let lb = d.named("lb");
    let mut pools = vec![of(&lb, "backendAddressPools", "machines")];
    if vm.is_master() {
        pools.push(of(&d.api_balancer().0, "backendAddressPools", "masters"));
    }
    let mut interface = here(Command::new("network nic create").with("--name", vm.interface()))
        .with("--vnet-name", d.named("vnet"))
        .with("--subnet", &vm.subnet)
        .with("--private-ip-address", vm.address.to_string())
        .with("--ip-forwarding", "true")
        .with_all("--lb-address-pools", pools);
    if vm.ssh_port.is_some() {
        let rule = of(&lb, "inboundNatRules", &vm.ssh_rule());
        interface = interface.with("--lb-inbound-nat-rules", rule);
    }
    let interfaces = Command::new("network nic list");
    lines.once("interface", &vm.interface(), &interfaces, &interface);
    let mut create = Command::new("vm create")
        .with("--name", &vm.name)
        .with("--computer-name", &vm.name)
        .with("--location", variable("$location"))
        .with_all(
            "--tags",
            [
                variable("$tag=$cluster"),
                format!("role={}", vm.role).into(),
            ],
        )
        .with("--nics", vm.interface())
        .with("--nic-delete-option", "Delete");
    create = login(
        create,
        d,
        &vm.size,
        &vm.image.to_string(),
        &vm.document,
        "--size",
    )
    .with("--os-disk-delete-option", "Delete");
    create = match vm.place {
        Place::Set => create.with("--availability-set", d.set(vm.role)),
        Place::Zone(zone) => create.with("--zone", zone.to_string()),
    };
    lines.once("machine", &vm.name, &Command::new("vm list"), &create);
    let console = Command::new("vm boot-diagnostics enable").with("--name", &vm.name);
    lines.make("its console", &console);
}

/// What it is made from, who logs in, and with what it boots.
fn login(
    create: Command,
    d: &Deployment,
    size: &str,
    image: &str,
    document: &str,
    size_option: &str,
) -> Command {
    let mut create = create
        .with(size_option, size)
        .with("--image", image)
        .with("--authentication-type", "ssh")
        .with("--admin-username", &d.user)
        .with_all("--ssh-key-values", &d.keys)
        .with("--custom-data", document_of(document))
        .with("--storage-sku", &d.disk.kind);
    if let Some(gb) = d.disk.gb {
        create = create.with("--os-disk-size-gb", gb.to_string());
    }
    create
}

fn document_of(name: &str) -> super::lines::Word {
    variable(&format!("$here/../{name}/user-data"))
}

/// No machine is there before the interface of all is as it should be. A set
/// that has machines keeps their number.
fn scale_set(d: &Deployment, pool: &ScaleSet, lines: &mut Lines) {
    let create = here(Command::new("vmss create").with("--name", &pool.name))
        .with("--orchestration-mode", "Uniform")
        .with("--instance-count", "0")
        .with("--computer-name-prefix", pool.prefix())
        .with("--upgrade-policy-mode", "Manual")
        .flag("--disable-overprovision")
        .with("--single-placement-group", "false")
        .with("--vnet-name", d.named("vnet"))
        .with("--subnet", &pool.subnet)
        .with("--load-balancer", d.named("lb"))
        .with("--backend-pool-name", "machines");
    let mut create = login(
        create,
        d,
        &pool.size,
        &pool.image.to_string(),
        &pool.name,
        "--vm-sku",
    );
    if !d.zones.is_empty() {
        create = create.with_all("--zones", d.zones.iter().map(u8::to_string));
    }
    lines.once("scale set", &pool.name, &Command::new("vmss list"), &create);
    let forwarding = "virtualMachineProfile.networkProfile.networkInterfaceConfigurations[0].enableIPForwarding=true";
    let update = Command::new("vmss update")
        .with("--name", &pool.name)
        .with("--custom-data", document_of(&pool.name))
        .with("--set", forwarding);
    lines.make("its document for machines to come", &update);
    let name = super::quoted(&pool.name);
    lines.raw(&format!(
        "count=$(az vmss show --resource-group \"$group\" --name {name} --query sku.capacity --output tsv)"
    ));
    lines.raw("if [ \"$count\" -eq 0 ]; then");
    lines.raw(&format!(
        "    make 'its machines' vmss scale --name {name} --new-capacity {}",
        pool.count
    ));
    lines.raw("fi");
}
