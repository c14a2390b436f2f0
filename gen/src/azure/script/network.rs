//! The network, in commands.

use super::here;
use super::lines::{Command, Lines};
use crate::azure::access::OPTIONAL;
use crate::azure::{Action, Deployment, Rule};

/// Everything of the network but interfaces.
pub fn lines(d: &Deployment, lines: &mut Lines) {
    security_group(d, lines);
    route_table(d, lines);
    vnet(d, lines);
    public_address(d, lines);
    public_balancer(d, lines);
    internal_balancer(d, lines);
}

fn list(words: &str) -> Command {
    Command::new(&format!("{words} list"))
}

fn create(words: &str, name: &str) -> Command {
    Command::new(&format!("{words} create")).with("--name", name)
}

fn security_group(d: &Deployment, lines: &mut Lines) {
    let (group, name) = ("network nsg", d.named("nsg"));
    lines.part("Who may come in. Rules are made anew, that changed ranges count.");
    lines.once(
        "network security group",
        &name,
        &list(group),
        &here(create(group, &name)),
    );
    for wanted in &d.rules {
        lines.make(&format!("rule {}", wanted.name), &rule(&name, wanted));
    }
    for gone in OPTIONAL {
        if d.rules.iter().all(|rule| rule.name != gone) {
            let list = list("network nsg rule").with("--nsg-name", &name);
            let delete = Command::new("network nsg rule delete")
                .with("--nsg-name", &name)
                .with("--name", gone);
            lines.while_there(&format!("no rule {gone}"), gone, &list, &delete);
        }
    }
}

fn rule(group: &str, rule: &Rule) -> Command {
    let access = match rule.action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
    };
    create("network nsg rule", rule.name)
        .with("--nsg-name", group)
        .with("--priority", rule.priority.to_string())
        .with("--direction", "Inbound")
        .with("--access", access)
        .with("--protocol", rule.protocol)
        .with_all("--source-address-prefixes", &rule.from)
        .with("--source-port-ranges", "*")
        .with_all("--destination-address-prefixes", &rule.to)
        .with(
            "--destination-port-ranges",
            rule.port.map_or_else(|| "*".to_owned(), |p| p.to_string()),
        )
}

fn route_table(d: &Deployment, lines: &mut Lines) {
    let Some(routes) = &d.routes else { return };
    let (table, name) = ("network route-table", d.named("routes"));
    lines.part("A route a machine with pods; made anew, that a wrong next hop is put right.");
    lines.once(
        "route table",
        &name,
        &list(table),
        &here(create(table, &name)),
    );
    for (machine, range, next) in routes {
        let route = create("network route-table route", machine)
            .with("--route-table-name", &name)
            .with("--address-prefix", range.to_string())
            .with("--next-hop-type", "VirtualAppliance")
            .with("--next-hop-ip-address", next.to_string());
        lines.make(&format!("route to {machine}"), &route);
    }
}

fn vnet(d: &Deployment, lines: &mut Lines) {
    let (vnet, name) = ("network vnet", d.named("vnet"));
    lines.part("The network.");
    let network = here(create(vnet, &name)).with("--address-prefixes", d.vnet.to_string());
    lines.once("network", &name, &list(vnet), &network);
    for (subnet, range) in &d.subnets {
        let list = list("network vnet subnet").with("--vnet-name", &name);
        let mut command = create("network vnet subnet", subnet)
            .with("--vnet-name", &name)
            .with("--address-prefixes", range.to_string())
            .with("--network-security-group", d.named("nsg"));
        if d.routes.is_some() {
            command = command.with("--route-table", d.named("routes"));
        }
        lines.once(&format!("subnet {subnet}"), subnet, &list, &command);
    }
}

fn public_address(d: &Deployment, lines: &mut Lines) {
    let (address, name) = ("network public-ip", d.named("ip"));
    lines.part("The public address, and the way out for all machines.");
    let mut command = here(create(address, &name))
        .with("--sku", "Standard")
        .with("--version", "IPv4")
        .with("--allocation-method", "Static");
    if let Some(label) = &d.dns_label {
        command = command.with("--dns-name", label);
    }
    if !d.zones.is_empty() {
        command = command.with_all("--zone", d.zones.iter().map(u8::to_string));
    }
    lines.once("public address", &name, &list(address), &command);
}

fn public_balancer(d: &Deployment, lines: &mut Lines) {
    let (lb, name) = ("network lb", d.named("lb"));
    let balancer = here(create(lb, &name))
        .with("--sku", "Standard")
        .with("--public-ip-address", d.named("ip"))
        .with("--frontend-ip-name", "public")
        .with("--backend-pool-name", "machines");
    lines.once("load balancer", &name, &list(lb), &balancer);
    let out = create("network lb outbound-rule", "out")
        .with("--lb-name", &name)
        .with("--protocol", "All")
        .with("--frontend-ip-configs", "public")
        .with("--address-pool", "machines")
        .with("--enable-tcp-reset", "true");
    let outs = list("network lb outbound-rule").with("--lb-name", &name);
    lines.once("outbound rule", "out", &outs, &out);
    if d.api.internal.is_none() {
        let pools = list("network lb address-pool").with("--lb-name", &name);
        let pool = create("network lb address-pool", "masters").with("--lb-name", &name);
        lines.once("pool of masters", "masters", &pools, &pool);
        api(d, lines);
    }
    let nats = list("network lb inbound-nat-rule").with("--lb-name", &name);
    for vm in &d.machines {
        let Some(port) = vm.ssh_port else { continue };
        let nat = create("network lb inbound-nat-rule", &vm.ssh_rule())
            .with("--lb-name", &name)
            .with("--protocol", "Tcp")
            .with("--frontend-ip-name", "public")
            .with("--frontend-port", port.to_string())
            .with("--backend-port", "22")
            .with("--enable-tcp-reset", "true");
        lines.once(
            &format!("way to ssh of {}", vm.name),
            &vm.ssh_rule(),
            &nats,
            &nat,
        );
    }
}

fn internal_balancer(d: &Deployment, lines: &mut Lines) {
    let Some((address, subnet)) = &d.api.internal else {
        return;
    };
    let (lb, name) = ("network lb", d.named("api-lb"));
    let mut balancer = here(create(lb, &name))
        .with("--sku", "Standard")
        .with("--vnet-name", d.named("vnet"))
        .with("--subnet", subnet)
        .with("--private-ip-address", address.to_string())
        .with("--frontend-ip-name", "api")
        .with("--backend-pool-name", "masters");
    if !d.zones.is_empty() {
        balancer = balancer.with_all("--frontend-ip-zone", d.zones.iter().map(u8::to_string));
    }
    lines.part("The API servers' load balancer, inside.");
    lines.once("load balancer of the API", &name, &list(lb), &balancer);
    api(d, lines);
}

/// As in the template: asked over HTTPS what the API server thinks of itself.
fn api(d: &Deployment, lines: &mut Lines) {
    let (name, frontend) = d.api_balancer();
    let backend = d.api.backend_port.to_string();
    let probe = create("network lb probe", "api")
        .with("--lb-name", &name)
        .with("--protocol", "Https")
        .with("--port", &backend)
        .with("--path", "/readyz")
        .with("--interval", "5")
        .with("--probe-threshold", "2");
    let probes = list("network lb probe").with("--lb-name", &name);
    lines.once("probe of API servers", "api", &probes, &probe);
    let rule = create("network lb rule", "api")
        .with("--lb-name", &name)
        .with("--protocol", "Tcp")
        .with("--frontend-ip-name", frontend)
        .with("--frontend-port", d.api.port.to_string())
        .with("--backend-pool-name", "masters")
        .with("--backend-port", backend)
        .with("--probe-name", "api")
        .with("--idle-timeout", "30")
        .with("--enable-tcp-reset", "true")
        .with("--disable-outbound-snat", "true");
    let rules = list("network lb rule").with("--lb-name", &name);
    lines.once("rule of the API", "api", &rules, &rule);
}
